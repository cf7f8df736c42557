//! Maps and fills 2 MiB hugepages, as libfabric does, and holds them until
//! standard input ends. Exit status 2: the kernel had no more.

use std::io::{Read, Write};
use std::process::ExitCode;

const PAGE: usize = 2 << 20;

fn main() -> ExitCode {
    let pages = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let Some(bytes) = pages.and_then(|pages: usize| pages.checked_mul(PAGE)) else {
        eprintln!("usage: hugemap PAGES");
        return ExitCode::from(64);
    };
    // SAFETY: a private anonymous mapping anywhere has no preconditions.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        println!("no pages");
        return ExitCode::from(2);
    }
    for page in (0..bytes).step_by(PAGE) {
        // SAFETY: `page` lies inside the mapping.
        let byte = unsafe { at.cast::<u8>().add(page) };
        // SAFETY: the mapping is writable and ours. A fence around the job ends
        // this process here with SIGBUS.
        unsafe { byte.write_volatile(1) };
    }
    println!("mapped");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}
