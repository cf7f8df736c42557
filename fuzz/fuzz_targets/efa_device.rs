#![no_main]
//! A guest of the emulated EFA device: vfio-user messages, register writes,
//! commands, work requests and the memory that the device reads by DMA. Two devices
//! are set up as a driver does it, so that data moves from the first byte on.
//!
//! The input is a sequence of steps: a byte that says which device and what, then
//! what it needs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use efa_device::control::{Request, obey};
use efa_device::vfio_user::{PciDevice, Slot, answer};
use efa_device::{Configuration, Efa, Fabric, MODELS};
use libfuzzer_sys::fuzz_target;

const MEMORY: usize = 256 << 10;
const COMMANDS: u64 = 0x1000;
const COMPLETIONS: u64 = 0x2000;
const EVENTS: u64 = 0x3000;
const RECEIVES: u64 = 0x4000;
const COMPLETION_QUEUE: u64 = 0x5000;
const EVENT_QUEUE: u64 = 0x6000;
/// What is registered: the upper half, as its own addresses.
const REGION: u64 = MEMORY as u64 / 2;
const PAGE_LIST: u64 = 0x7000;

const REGISTERS: u32 = 0;
const SEND_RINGS: u32 = 2;
const DOORBELLS: u32 = 4;
const SEND_RING: u64 = 256 << 10;

/// The guests' memory: each device has a file of its own.
fn memory(device: usize) -> &'static File {
    static FILES: OnceLock<[File; 2]> = OnceLock::new();
    let file = |number: usize| {
        let name = format!("fuzz-efa-device-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(&path).expect("a file for the guest's memory");
        fs::remove_file(path).expect("the file just made");
        file
    };
    &FILES.get_or_init(|| [file(0), file(1)])[device]
}

/// What of the input is left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
}

struct Guest {
    device: usize,
    submitted: u16,
    sent: u16,
}

impl Guest {
    fn with<T>(&self, fabric: &Fabric, act: impl FnOnce(&mut Slot<Efa>) -> T) -> T {
        act(&mut fabric.ports()[self.device].lock().expect("no panic"))
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len() as u64);
        if end <= MEMORY as u64 {
            memory(self.device).write_all_at(bytes, at).expect("memory");
        }
    }

    fn write(&self, fabric: &Fabric, region: u32, offset: u64, bytes: &[u8]) {
        self.with(fabric, |slot| {
            slot.device.write(region, offset, bytes, &slot.guest);
        });
    }

    fn register(&self, fabric: &Fabric, at: u64, value: u32) {
        self.write(fabric, REGISTERS, at, &value.to_le_bytes());
    }

    fn doorbell(&self, fabric: &Fabric, at: u64, value: u32) {
        self.write(fabric, DOORBELLS, at, &value.to_le_bytes());
    }

    /// A command of the admin queue from its third byte on.
    fn command(&mut self, fabric: &Fabric, bytes: &[u8]) {
        let at = COMMANDS + u64::from(self.submitted % 32) * 64;
        self.put(at, &[0; 64]);
        self.put(at + 2, &bytes[..bytes.len().min(62)]);
        self.submitted = self.submitted.wrapping_add(1);
        self.register(fabric, 0x2c, u32::from(self.submitted));
    }

    fn fields(&mut self, fabric: &Fabric, opcode: u8, flags: u8, fields: &[(usize, u64)]) {
        let mut command = [0; 62];
        command[..2].copy_from_slice(&[opcode, flags]);
        for (at, value) in fields {
            // Fields overlap upwards: the next one's bytes come after.
            let place = &mut command[at - 2..];
            let len = place.len().min(8);
            place[..len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        self.command(fabric, &command);
    }

    fn work(&mut self, fabric: &Fabric, pair: u8, entry: &[u8]) {
        let at = u64::from(pair % 64) * SEND_RING + u64::from(self.sent % 16) * 64;
        self.write(fabric, SEND_RINGS, at, entry);
        self.sent = self.sent.wrapping_add(1);
        self.doorbell(fabric, u64::from(pair % 64) * 8, u32::from(self.sent));
    }

    /// What a driver and a program do first.
    fn set_up(&mut self, fabric: &Fabric) {
        memory(self.device).set_len(0).expect("memory");
        memory(self.device).set_len(MEMORY as u64).expect("memory");
        let file = memory(self.device).try_clone().expect("a descriptor");
        let gid = self.with(fabric, |slot| {
            slot.guest
                .map(0, MEMORY as u64, 0, file.into())
                .expect("memory");
            slot.device.gid()
        });
        for (at, value) in [
            (0x10, COMMANDS as u32),
            (0x18, 32 | 64 << 16),
            (0x20, COMPLETIONS as u32),
            (0x28, 32 | 64 << 16),
            (0x38, EVENTS as u32),
            (0x34, 16 | 64 << 16),
            (0x60, 0x100),
        ] {
            self.register(fabric, at, value);
        }
        self.fields(fabric, 18, 0, &[(4, 32), (6, 1), (7, 4), (8, EVENT_QUEUE)]);
        self.fields(
            fabric,
            9,
            0,
            &[
                (4, 0x20),
                (5, 8),
                (6, 32),
                (8, 0),
                (12, COMPLETION_QUEUE),
                (24, 1),
            ],
        );
        let pair = [
            (6, 2),
            (8, 0),
            (16, RECEIVES),
            (24, 0),
            (40, 1024),
            (44, 16),
            (48, 256),
            (52, 16),
        ];
        self.fields(fabric, 1, 0, &pair);
        self.fields(fabric, 2, 0, &[(4, 0b101), (8, 1), (12, 3), (20, 0)]);
        for page in 0..REGION / 4096 {
            self.put(PAGE_LIST + page * 8, &(REGION + page * 4096).to_le_bytes());
        }
        let region = [
            (8, 256),
            (12, PAGE_LIST),
            (40, REGION),
            (48, 12 | 7 << 8),
            (56, REGION),
        ];
        self.fields(fabric, 7, 1 << 1, &region);
        // The other device's address differs in its last byte.
        let mut handle = [0; 62];
        handle[0] = 5;
        handle[2..18].copy_from_slice(&gid);
        handle[17] = 1 - self.device as u8;
        self.command(fabric, &handle);
        // Buffers to receive into.
        for index in 0..16 {
            let at = RECEIVES + index * 16;
            self.put(at, &(REGION + index * 64).to_le_bytes());
            self.put(at + 10, &64u16.to_le_bytes());
            self.put(at + 12, &1u32.to_le_bytes());
        }
        self.doorbell(fabric, 12, 16);
        self.doorbell(fabric, 0x8000, 1 << 31);
        self.register(fabric, 0x68, 1 << 31);
        let counts = self.with(fabric, |slot| slot.device.counts());
        assert_eq!((counts.queue_pairs, counts.memory_regions), (1, 1));
        assert_eq!((counts.event_queues, counts.address_handles), (1, 1));
    }

    fn step(&mut self, fabric: &mut Fabric, what: u8, input: &mut Input<'_>) {
        match what {
            0 => {
                let command = u16::from(input.byte() & 0xf);
                let len = usize::from(input.byte());
                let body = input.take(len);
                // Memory is mapped with a file, as a client does it.
                let file = memory(self.device).try_clone().expect("a descriptor");
                self.with(fabric, |slot| {
                    let _ = answer(slot, command, body, vec![file.into()]);
                });
            }
            1 => {
                let command: [u8; 62] = input.array();
                self.command(fabric, &command);
            }
            2 => {
                let at = u64::from(input.word() % MEMORY as u32);
                let len = usize::from(input.byte());
                self.put(at, input.take(len));
            }
            3 => {
                let pair = input.byte();
                let entry: [u8; 64] = input.array();
                self.work(fabric, pair, &entry);
            }
            4 => {
                let at = u64::from(input.word() & 0xffff);
                self.doorbell(fabric, at, input.word());
            }
            5 => {
                let at = u64::from(input.byte());
                self.register(fabric, at, input.word());
            }
            6 => {
                let opcode = input.byte() % 24;
                let short: [u8; 16] = input.array();
                self.command(fabric, &[&[opcode, 0][..], &short].concat());
            }
            _ => self.control(fabric, input),
        }
    }

    fn control(&self, fabric: &Fabric, input: &mut Input<'_>) {
        let lines = [
            "dead-admin on",
            "dead-admin off",
            "gone on",
            "gone off",
            "slow 5",
            "slow 0",
            "muted on",
            "muted off",
            "not-ready on",
            "stuck-reset on",
            "stuck-reset off",
            "refuse 9 1",
            "refuse off",
            "event 4 1",
            "closed on",
            "closed off",
            "loss 20",
            "loss 0",
            "delay 3",
            "delay 0",
            "state",
            "counters",
        ];
        let line = lines[usize::from(input.byte()) % lines.len()];
        let request: Request = line.parse().expect(line);
        let client = Mutex::new(None);
        let _ = obey(
            request,
            &fabric.ports()[self.device],
            fabric.settings(),
            &client,
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let first = input.byte();
    let configuration = Configuration {
        model: MODELS[usize::from(first) % MODELS.len()],
        admin_timeout: 0,
        vectors: 3,
        verbose: false,
    };
    let mut fabric = Fabric::new(&configuration, 2, 1);
    let mut now = Instant::now();
    let mut guests = [0, 1].map(|device| Guest {
        device,
        submitted: 0,
        sent: 0,
    });
    for guest in &mut guests {
        guest.set_up(&fabric);
    }
    while !input.0.is_empty() {
        let step = input.byte();
        let guest = &mut guests[usize::from(step >> 7)];
        guest.step(&mut fabric, step & 7, &mut input);
        if step & 0x40 != 0 {
            now += Duration::from_millis(2);
            fabric.turn(now);
        }
    }
    for _ in 0..64 {
        now += Duration::from_millis(50);
        fabric.turn(now);
    }
    for port in fabric.ports() {
        let slot = port.lock().expect("no panic");
        let counts = slot.device.counts();
        assert!(counts.queue_pairs <= 63 && counts.completion_queues <= 512);
        assert!(counts.event_queues <= 2 && counts.address_handles <= 2048);
        assert!(counts.pages <= 1 << 21 && counts.memory_regions <= counts.pages);
    }
});
