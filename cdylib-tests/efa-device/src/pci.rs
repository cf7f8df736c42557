//! The device's PCI config space and BARs.
//!
//! Known from the kernel's driver: BARs 0, 2 and the doorbells' must be memory, and
//! at least one MSI-X vector must exist. The rest is chosen: the sizes, where the
//! MSI-X table lies, and the link that sysfs shows.

/// BAR 0: the registers, the MSI-X table and its pending bits.
pub(crate) const REGISTERS: u32 = 0;
/// BAR 2: the send rings.
pub(crate) const SEND_RINGS: u32 = 2;
/// BAR 4: the doorbells. The device itself tells the driver which BAR they are in.
pub(crate) const DOORBELLS: u32 = 4;

pub(crate) const REGISTERS_SIZE: u64 = 16 << 10;
pub(crate) const DOORBELLS_SIZE: u64 = 64 << 10;

const MSIX_TABLE: u32 = 0x2000;
const MSIX_PENDING: u32 = 0x3000;

const AMAZON: u16 = 0x1d0f;
const SIZE: usize = 4096;

const COMMAND: usize = 0x04;
const MSIX: usize = 0x40;
const EXPRESS: usize = 0x50;
/// The high byte of the device control register: bit 7 resets the function.
const DEVICE_CONTROL_HIGH: usize = EXPRESS + 9;
const INITIATE_RESET: u8 = 0x80;

/// The config space of one device.
#[derive(Debug)]
pub(crate) struct ConfigSpace(Vec<u8>);

impl ConfigSpace {
    pub(crate) fn new(device_id: u16, vectors: u16) -> Self {
        let mut space = vec![0; SIZE];
        let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &AMAZON.to_le_bytes());
        put(0x02, &device_id.to_le_bytes());
        // Status: there are capabilities. Class: an Ethernet controller.
        put(0x06, &[0x10]);
        put(0x0a, &[0x00, 0x02]);
        // BAR 0 has 32 bits; BARs 2 and 4 have 64 and are prefetchable.
        put(0x18, &[0x0c]);
        put(0x20, &[0x0c]);
        put(0x2c, &AMAZON.to_le_bytes());
        put(0x2e, &device_id.to_le_bytes());
        put(0x34, &[0x40]);
        put(MSIX, &[0x11, 0x50]);
        put(MSIX + 2, &(vectors.max(1) - 1).to_le_bytes());
        put(MSIX + 4, &(MSIX_TABLE | REGISTERS).to_le_bytes());
        put(MSIX + 8, &(MSIX_PENDING | REGISTERS).to_le_bytes());
        // PCI Express: an endpoint that can be reset by function, 16 lanes of 8 GT/s.
        put(EXPRESS, &[0x10, 0x00, 0x02, 0x00]);
        put(EXPRESS + 4, &0x1000_8000_u32.to_le_bytes());
        put(EXPRESS + 12, &0x0000_0103_u32.to_le_bytes());
        put(EXPRESS + 18, &0x0103_u16.to_le_bytes());
        Self(space)
    }

    pub(crate) fn size(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(SIZE).min(SIZE);
        let len = data.len().min(SIZE - from);
        data.fill(0);
        data[..len].copy_from_slice(&self.0[from..from + len]);
    }

    /// True: the guest asks for a reset of the function.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let offset = usize::try_from(offset).unwrap_or(SIZE).min(SIZE);
        let mut reset = false;
        for (byte, (at, value)) in data.iter().zip(self.0.iter_mut().enumerate().skip(offset)) {
            *value = match at {
                DEVICE_CONTROL_HIGH => {
                    reset |= byte & INITIATE_RESET != 0;
                    byte & !INITIATE_RESET
                }
                // Command, interrupt line, MSI-X control, device and link control.
                0x04..=0x05 | 0x3c | 0x43 | 0x58 | 0x60..=0x61 => *byte,
                _ => *value,
            };
        }
        reset
    }

    pub(crate) fn reset(&mut self) {
        self.0[COMMAND..COMMAND + 2].fill(0);
    }
}
