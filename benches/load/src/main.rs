//! Starts a bus server, holds long polls of it, lets it publish, and prints the
//! costs: `load SERVER [POLLS [ROUNDS [ARGUMENT…]]]`. The server is
//! `bus-server`, another program that takes the same commands
//! (`benches/tryton.py`) with its arguments, or `nginx`, which then needs
//! nchan.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "what is printed is rounded anyway"
)]
mod client;
mod server;

use std::io;
use std::time::{Duration, Instant};

use client::Clients;
use server::Server;

/// How many polls there are before the memory is looked at.
const FEW: usize = 10;

/// The silence before a message: longer than `session_cache`, the time for
/// which trytond-bus keeps the result of a session check. It is measured from
/// `SILENCE_FROM` polls on, because fewer do not show the cost of a check.
const SILENCE: Duration = Duration::from_secs(35);
const SILENCE_FROM: usize = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize, default: usize| {
        arguments
            .get(index)
            .map_or(Ok(default), |text| text.parse())
    };
    let server = arguments
        .get(1)
        .ok_or("load SERVER [POLLS [ROUNDS [ARGUMENT…]]]")?;
    let (polls, rounds) = (number(2, 10_000)?, number(3, 10)?);
    trytond_fastbus::server::raise_descriptor_limit()?;
    let mut server = Server::start(server, arguments.get(4..).unwrap_or_default())?;
    {
        // Memory that is needed once does not belong to a poll.
        let mut few = Clients::connect(&server, FEW)?;
        server.wait_for(FEW, &mut few)?;
    }
    let before = server.memory()?;
    let used = Used::now(&mut server)?;
    let begun = Instant::now();
    let mut clients = Clients::connect(&server, polls)?;
    server.wait_for(polls, &mut clients)?;
    println!(
        "all come, until all wait    {} ms",
        begun.elapsed().as_millis()
    );
    println!(
        "CPU to take a poll in       {}",
        used.since(&mut server, polls)?
    );
    let memory = |now: u64| now.saturating_sub(before) / polls as u64;
    println!("polls                       {polls}");
    println!("bytes without a poll        {before}");
    println!("bytes a waiting poll        {}", memory(server.memory()?));

    // To all clients. They poll again when the last one has the message.
    let mut last = Vec::new();
    let mut each = Vec::new();
    for _ in 0..rounds {
        clients.hold();
        let begun = Instant::now();
        clients.publish(&mut server)?;
        clients.run_until(Clients::is_done)?;
        each.extend(clients.take_times().iter().map(|time| *time - begun));
        last.push(begun.elapsed());
        clients.go_on()?;
        server.wait_for(polls, &mut clients)?;
    }
    println!("to the last of all          {}", quantiles(&mut last));
    println!("to each of all              {}", quantiles(&mut each));

    // One after the other, as fast as the clients poll again.
    let used = (server.cpu()?, server::cpu("self")?);
    let begun = Instant::now();
    for _ in 0..rounds * 2 {
        clients.publish(&mut server)?;
    }
    clients.run_until(Clients::is_done)?;
    let elapsed = begun.elapsed().as_secs_f64();
    clients.take_times();
    let deliveries = (polls * rounds * 2) as f64;
    server.wait_for(polls, &mut clients)?;
    let (of_server, of_load) = (server.cpu()? - used.0, server::cpu("self")? - used.1);
    println!("deliveries a second         {:.0}", deliveries / elapsed);
    println!(
        "server's CPU a delivery     {:.1} us",
        of_server * 1e6 / deliveries
    );
    println!(
        "load's CPU a delivery       {:.1} us",
        of_load * 1e6 / deliveries
    );

    if polls >= SILENCE_FROM {
        let used = Used::now(&mut server)?;
        clients.rest(SILENCE)?;
        let (of_server, of_database) = used.each(&mut server, 1)?;
        let part = |used: f64| used / SILENCE.as_secs_f64() / 1e4;
        println!(
            "CPU at rest                 {:.2} %, database {:.2} %",
            part(of_server),
            part(of_database)
        );
        let used = Used::now(&mut server)?;
        let begun = Instant::now();
        clients.publish(&mut server)?;
        clients.run_until(Clients::is_done)?;
        let last = begun.elapsed();
        server.wait_for(polls, &mut clients)?;
        clients.take_times();
        println!(
            "after silence               last {} ms, all wait {} ms",
            last.as_millis(),
            begun.elapsed().as_millis()
        );
        println!(
            "CPU after silence           {}",
            used.since(&mut server, polls)?
        );
    }

    // To one of the clients.
    let mut single = Vec::new();
    for number in 0..rounds * 30 {
        let begun = Instant::now();
        clients.publish_to(&mut server, number * 31 % polls)?;
        clients.run_until(Clients::is_done)?;
        single.extend(clients.take_times().iter().map(|time| *time - begun));
        clients.rest(Duration::from_millis(2))?;
    }
    println!("to one among all            {}", quantiles(&mut single));
    server.wait_for(polls, &mut clients)?;
    println!("bytes a poll, after load    {}", memory(server.memory()?));
    println!(
        "lost, twice, order, failed  {}, {}, {}, {}",
        clients.lost(),
        clients.duplicated,
        clients.reordered,
        clients.failed
    );
    Ok(())
}

/// The CPU that a server and its database had used.
struct Used(f64, f64);

impl Used {
    fn now(server: &mut Server) -> io::Result<Self> {
        Ok(Self(server.cpu()?, server.database_cpu()?))
    }

    /// The CPU that each of these polls has taken since, in microseconds.
    fn each(&self, server: &mut Server, polls: usize) -> io::Result<(f64, f64)> {
        let now = Self::now(server)?;
        let each = |used: f64| used * 1e6 / polls as f64;
        Ok((each(now.0 - self.0), each(now.1 - self.1)))
    }

    fn since(&self, server: &mut Server, polls: usize) -> io::Result<String> {
        let (server, database) = self.each(server, polls)?;
        Ok(format!("server {server:.1} us, database {database:.1} us"))
    }
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len().saturating_sub(1)) as f64 * part;
        times
            .get(index as usize)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
