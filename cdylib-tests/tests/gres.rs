use cdylib_tests::simnode::Spec;
use cdylib_tests::testbed::{NodeOptions, Testbed};

#[test]
fn explore() {
    let gres = (0..4)
        .map(|n| format!("NodeName=n1 Name=gpu Type=h100 File={{dir}}/sysroots/n1/dev/nvidia{n}\n"))
        .collect::<String>()
        + &(0..4)
            .map(|n| {
                format!("NodeName=n1 Name=shard Count=7 File={{dir}}/sysroots/n1/dev/nvidia{n}\n")
            })
            .collect::<String>();
    let tb = Testbed::builder()
        .node(NodeOptions {
            gres: Some("gpu:h100:4,shard:28".into()),
            ..NodeOptions::simulated(Spec::named("p5.48xlarge").unwrap())
        })
        .slurm_conf_extra("GresTypes=gpu,shard\nProlog={dir}/prolog.sh\n")
        .file("gres.conf", &gres)
        .file(
            "prolog.sh",
            "#!/bin/bash\nenv > {dir}/prolog.$SLURM_JOB_ID\n",
        )
        .prepare(|dir| {
            for n in 0..4 {
                assert!(
                    std::process::Command::new("mknod")
                        .arg(dir.join(format!("sysroots/n1/dev/nvidia{n}")))
                        .args(["c", "195", &n.to_string()])
                        .status()?
                        .success()
                );
            }
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(
                dir.join("prolog.sh"),
                std::fs::Permissions::from_mode(0o755),
            )
        })
        .start()
        .unwrap();
    let o = tb.srun("alice", &["--gres=shard:3", "bash", "-c", "env | grep -E 'SHARD|CUDA|GPU|GRES'; cat /proc/self/cgroup; scontrol show job -d $SLURM_JOB_ID | grep -i gres"]).unwrap();
    println!("{o}");
    let o = tb
        .srun(
            "alice",
            &[
                "--gres=gpu:h100:2",
                "bash",
                "-c",
                "env | grep -E 'SHARD|CUDA|GPU|GRES'",
            ],
        )
        .unwrap();
    println!("{o}");
    let o = tb.run("root", &["bash", "-c", "grep -E 'SHARD|CUDA|GPU|GRES|NODENAME|SPOOL|SLURM_CONF' $0/prolog.*; scontrol show node -o", tb.dir().to_str().unwrap()], &[]).unwrap();
    println!("{o}");
}
