//! The memory of the bus server that a poll takes while its session is checked.
//! It is measured in a process of its own, because the memory of other tests
//! would count as well.

use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::{Client, JSON, Site, start, until};
use trytond_fastbus::server::Config;

/// The length of a header that comes with each poll.
const HEADER: usize = 7000;
/// Set in the process that measures.
const ALONE: &str = "BUS_TEST_ALONE";

#[test]
fn poll_whose_session_is_checked_keeps_nothing_of_its_request() {
    if std::env::var_os(ALONE).is_some() {
        return measure();
    }
    let name = "memory::poll_whose_session_is_checked_keeps_nothing_of_its_request";
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("a process");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("1 passed"), "{output:?}");
}

fn measure() {
    let site = start(Config::default());
    // Memory that is needed once does not belong to a poll.
    let few = poll(&site, 0..50);
    let before = resident();
    let many = poll(&site, 50..450);
    let each = resident().saturating_sub(before) / many.len();
    assert!(each < HEADER, "{each} bytes a poll");
    drop((few, many));
}

/// Clients whose sessions can't be checked, and are tried again and again.
fn poll(site: &Site, numbers: std::ops::Range<usize>) -> Vec<Client> {
    let count = numbers.end;
    let clients = numbers
        .map(|number| {
            let cookie =
                format!("Cookie: tryton_session=u{number}:{number}:failed\r\n");
            let headers = format!("{cookie}X-Long: {:HEADER$}\r\n{JSON}", "-");
            let mut client = site.connect();
            client.send(&site.post(&headers, "{}"));
            client
        })
        .collect();
    until("asked", || site.sessions.most.load(SeqCst) >= count);
    clients
}

/// The bytes of this process that are resident.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: usize = kilobytes
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kilobytes * 1024
}
