//! Limits a poll to the chats of records that its user may read.
use pyo3::prelude::*;

use super::imports::{ACCESS_TIMEOUT, READABLE};
use super::process::seconds;
use crate::poll::Poll;
use crate::registry::Process;

/// Drops the chats of records that the user may not read, and those that
/// trytond can't decide on now. If the user is unknown, all chats are kept.
pub(super) fn restrict(
    py: Python<'_>,
    process: &Process,
    database: &str,
    poll: &mut Poll,
) -> PyResult<()> {
    if poll.chats().next().is_none() {
        return Ok(());
    }
    let Some(user) = poll.user() else {
        return Ok(());
    };
    let time: Option<f64> = ACCESS_TIMEOUT.get(py)?.call0()?.extract()?;
    let Some(time) = time.map(seconds) else {
        return Ok(());
    };
    let mut readable = Vec::new();
    // A user whose id is not a number may read nothing.
    if let Ok(user) = user.parse() {
        let access = process.access();
        let known = access.known(database, user, poll, process.now());
        readable = known.readable;
        if let Some(answer) = ask(py, database, user, &known.unknown)? {
            let now = process.now();
            access.remember(database, user, &known.unknown, &answer, now, time);
            readable.extend(answer);
        }
    }
    poll.keep_chats(readable);
    Ok(())
}

/// Asks trytond; none if it can't decide now.
fn ask(
    py: Python<'_>,
    database: &str,
    user: u32,
    chats: &[Box<str>],
) -> PyResult<Option<Vec<Box<str>>>> {
    if chats.is_empty() {
        return Ok(None);
    }
    let chats: Vec<&str> = chats.iter().map(AsRef::as_ref).collect();
    let answer = READABLE.get(py)?.call1((database, user, chats))?;
    let answer: Option<Vec<String>> = answer.extract()?;
    Ok(answer.map(|answer| answer.into_iter().map(Into::into).collect()))
}
