//! The server that is measured.
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Clients;

/// The ticks of `/proc/*/stat` in a second.
const TICKS: f64 = 100.0;

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(path: &str) -> io::Result<Self> {
        let mut child = Command::new(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.split_whitespace().next().unwrap_or_default();
        let address = address.parse().map_err(io::Error::other)?;
        Ok(Self {
            child,
            input,
            output,
            address,
        })
    }

    pub(crate) fn send(&mut self, line: &str) -> io::Result<()> {
        self.input.write_all(line.as_bytes())
    }

    /// Waits until as many polls wait at the server.
    pub(crate) fn wait_for(
        &mut self,
        polls: usize,
        clients: &mut Clients,
    ) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            clients.rest(Duration::from_millis(20))?;
            self.send("waiting\n")?;
            let mut line = String::new();
            self.output.read_line(&mut line)?;
            if line.trim() == polls.to_string() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{} polls wait", line.trim())));
            }
        }
    }

    /// Its resident memory in bytes.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let kilobytes = kilobytes.and_then(|text| text.parse::<u64>().ok());
        Ok(kilobytes.unwrap_or_default() * 1024)
    }

    /// The CPU that it has used, in seconds.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        cpu(&self.child.id().to_string())
    }
}

/// The CPU that a process has used, in seconds.
pub(crate) fn cpu(process: &str) -> io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before may have spaces, and is in parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    Ok(ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
