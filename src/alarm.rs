//! Wakes the listening thread. One alarm serves all databases of a process.
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::sync::{Mutex, lock};

/// An alarm; clones are the same one.
#[derive(Clone, Debug)]
pub struct Alarm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The keys of the bells that rang since [`Alarm::take`].
    rung: Mutex<BTreeSet<u64>>,
    /// Readable while `rung` is not empty.
    reader: UnixStream,
    writer: UnixStream,
}

/// Rings an alarm for one database.
#[derive(Clone, Debug)]
pub struct Bell {
    alarm: Alarm,
    key: u64,
}

impl Alarm {
    /// A new alarm, which takes two descriptors.
    ///
    /// # Errors
    ///
    /// When the system has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let rung = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                rung,
                reader,
                writer,
            }),
        })
    }

    /// A bell with this key.
    #[must_use]
    pub fn bell(&self, key: u64) -> Bell {
        Bell {
            alarm: self.clone(),
            key,
        }
    }

    /// The keys of the bells that rang since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<u64> {
        let mut rung = lock(&self.shared.rung);
        let mut bytes = [0; 64];
        while matches!((&self.shared.reader).read(&mut bytes), Ok(64)) {}
        std::mem::take(&mut *rung).into_iter().collect()
    }
}

impl AsRawFd for Alarm {
    /// A descriptor that is readable while a bell has rung.
    fn as_raw_fd(&self) -> RawFd {
        self.shared.reader.as_raw_fd()
    }
}

impl Bell {
    /// Rings the bell. A second ring before [`Alarm::take`] changes nothing.
    pub fn ring(&self) {
        let shared = &self.alarm.shared;
        let mut rung = lock(&shared.rung);
        let is_first = rung.is_empty();
        if rung.insert(self.key) && is_first {
            // The socket holds one byte at a time, so this never blocks.
            let _ = (&shared.writer).write(&[0]);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn alarm_is_readable_until_the_bells_that_rang_are_taken() {
        let alarm = Alarm::new().expect("sockets");
        let is_readable = || {
            let mut byte = [0];
            matches!((&alarm.shared.reader).read(&mut byte), Ok(1))
        };
        let (one, other) = (alarm.bell(1), alarm.bell(2));
        other.ring();
        one.ring();
        other.ring();
        assert_eq!(alarm.take(), [1, 2]);
        assert!(alarm.take().is_empty());
        assert!(!is_readable());
        one.ring();
        assert!(is_readable());
        assert_eq!(alarm.take(), [1]);
    }
}
