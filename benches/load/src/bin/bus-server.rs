//! The bus server without Python: every session is valid, and messages come
//! from standard input, one in a line: `channel json`. The line `waiting`
//! prints how many polls wait, the line `end` ends it. With the paths of a
//! certificate and of its key it speaks TLS: `bus-server [CERTIFICATE KEY]`.
use std::io::{BufRead, Write, stdin, stdout};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::available_parallelism;

use trytond_fastbus::message::Message;
use trytond_fastbus::registry;
use trytond_fastbus::server::{
    Address, Answered, Asked, Check, Config, Listener, Server, Session, Tls, Trytond,
    raise_descriptor_limit,
};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Everybody;

impl Trytond for Everybody {
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
        Box::pin(async move { Some(vec![true; names.len()]) })
    }

    fn sessions(&self, _: &str, sessions: Vec<Arc<Session>>) -> Answered<Vec<Check>> {
        Box::pin(async move { vec![Check::Valid; sessions.len()] })
    }

    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>> {
        Box::pin(async { Some(asked.chats) })
    }

    fn opened(&self, _: &str) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    raise_descriptor_limit()?;
    let listeners = Address::Tcp(Some("127.0.0.1".into()), 0).bind()?;
    let Some(Listener::Tcp(listener)) = listeners.first() else {
        return Err("no socket".into());
    };
    let address = listener.local_addr()?;
    let admin = TcpListener::bind("127.0.0.1:0")?;
    let files: Vec<_> = std::env::args().skip(1).collect();
    let tls = match &files[..] {
        [certificate, key] => Some(Tls::read(certificate.as_ref(), key.as_ref())?),
        _ => None,
    };
    let config = Config {
        tls: tls.map(Arc::new),
        ..Config::default()
    };
    let process = registry::current();
    let bus = process.open("db", config.history);
    let _server = Server::start(
        config,
        listeners,
        vec![Listener::Tcp(admin)],
        Arc::new(Everybody),
        process.clone(),
        available_parallelism().map_or(2, std::num::NonZero::get),
    )?;
    let mut out = stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    for line in stdin().lock().lines() {
        let line = line?;
        if let Some((channel, json)) = line.split_once(' ') {
            process.publish(&bus, vec![Message::new(channel, json)?])?;
        } else if line == "end" {
            break;
        } else if line == "cpu" {
            // It has no database.
            writeln!(out, "0")?;
            out.flush()?;
        } else {
            writeln!(out, "{}", bus.statistics().waiting)?;
            out.flush()?;
        }
    }
    Ok(())
}
