//! A guest in the tests: a vfio-user client that plays QEMU and the kernel's
//! driver, over a socket pair.

mod control;
mod data;
mod driver;
mod faults;
mod hostile;
mod probe;
mod program;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::Configuration;
use crate::control::{Request, obey};
use crate::fabric::{Fabric, Port};
use crate::features::{MODELS, Model};
use crate::vfio_user::lock;
use driver::Driver;

fn model(name: &str) -> Model {
    name.parse().unwrap()
}

fn configuration(model: Model) -> Configuration {
    Configuration {
        model,
        admin_timeout: 5,
        vectors: 9,
        verbose: false,
    }
}

/// A fabric with a clock that the test moves, and a driver on every device.
struct World {
    fabric: Fabric,
    now: Instant,
    started: Instant,
}

impl World {
    fn new(model: Model, devices: usize) -> Self {
        Self::with(&configuration(model), devices)
    }

    fn with(configuration: &Configuration, devices: usize) -> Self {
        let now = Instant::now();
        Self {
            fabric: Fabric::new(configuration, devices, 7),
            now,
            started: now,
        }
    }

    fn port(&self, device: usize) -> Port {
        Arc::clone(&self.fabric.ports()[device])
    }

    /// A guest's driver that has bound to a device.
    fn driver(&self, device: usize) -> Driver {
        let mut driver = Driver::connect(self.port(device));
        driver.probe().unwrap();
        driver
    }

    /// Moves the clock on until nothing waits.
    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            match self.fabric.turn(self.now) {
                Some(due) => self.now = self.now.max(due),
                None => return,
            }
        }
        panic!("work never ends");
    }

    /// Moves the clock on by a time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.fabric.turn(self.now).is_some_and(|due| {
            self.now = self.now.max(due.min(end));
            due <= end
        }) {}
        self.now = end;
    }

    /// How far the clock was moved.
    fn passed(&self) -> Duration {
        self.now - self.started
    }

    fn counter(&self, device: usize, name: &str) -> u64 {
        let value = lock(&self.port(device)).device.counters.get(name);
        value.unwrap_or_else(|| panic!("no counter {name}"))
    }

    fn tell(&self, device: usize, line: &str) -> Result<String, String> {
        let request: Request = line.parse()?;
        let client = std::sync::Mutex::new(None);
        obey(request, &self.port(device), self.fabric.settings(), &client)
    }

    fn set_delay(&self, milliseconds: u64) {
        self.fabric.settings().delay.store(milliseconds, Relaxed);
    }
}

#[test]
fn every_model_can_be_named_and_has_a_device_id_of_its_own() {
    let mut ids: Vec<u16> = MODELS.iter().map(|model| model.device_id).collect();
    for known in MODELS {
        assert_eq!(model(known.name), *known);
    }
    ids.dedup();
    assert_eq!(ids, [0xefa0, 0xefa1, 0xefa2, 0xefa3]);
    assert!("p3".parse::<Model>().unwrap_err().contains("p5en"));
}
