//! A cache of trytond's answers about the chats that a user may follow.
//!
//! trytond publishes the chat of a record on `chat:<model>,<id>`. A user that
//! may not read the record may not follow its chat. trytond decides that.
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use smallvec::SmallVec;

use crate::poll::Poll;
use crate::sync::{Mutex, lock};

/// The limit of cached answers, which take about 15 MB.
const ANSWERS_MAX: usize = 100_000;

/// The longest channel name that trytond is asked about, in bytes. The names
/// that trytond makes are shorter.
const NAME_MAX: usize = 256;

/// The cached answers of trytond.
#[derive(Debug, Default)]
pub struct Access(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// By the [`key`] of database, user and channel.
    all: HashMap<Box<[u8]>, Answer>,
    /// When the expired answers are removed next.
    tidy_at: Duration,
}

#[derive(Debug)]
struct Answer {
    is_readable: bool,
    until: Duration,
}

/// The cached answers about the chats of a poll. A chat that the user may not
/// read, or a name that is not a chat's, is in neither list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The chats that the user may read.
    pub readable: Vec<Box<str>>,
    /// The chats that trytond has to be asked about.
    pub unknown: Vec<Box<str>>,
}

impl Access {
    /// Looks up the answers that are valid at `now` for the chats in the poll
    /// of `user`.
    #[must_use]
    pub fn known(
        &self,
        database: &str,
        user: u32,
        poll: &Poll,
        now: Duration,
    ) -> Known {
        let mut known = Known::default();
        let answers = lock(&self.0);
        for chat in poll.chats().filter(|chat| is_of_a_record(chat)) {
            let answer = answers.all.get(&*key(database, user, chat));
            match answer.filter(|answer| now < answer.until) {
                None => known.unknown.push(chat.into()),
                Some(answer) if answer.is_readable => known.readable.push(chat.into()),
                Some(_) => {}
            }
        }
        known
    }

    /// Caches the answer about the chats in `asked` for this time from `now` on.
    pub fn remember(
        &self,
        database: &str,
        user: u32,
        asked: &[Box<str>],
        readable: &[Box<str>],
        now: Duration,
        time: Duration,
    ) {
        let readable: HashSet<_> = readable.iter().collect();
        let mut answers = lock(&self.0);
        answers.make_room(asked.len(), now, time);
        for chat in asked {
            let answer = Answer {
                is_readable: readable.contains(chat),
                until: now.saturating_add(time),
            };
            let key = key(database, user, chat);
            answers.all.insert((&*key).into(), answer);
        }
    }
}

impl Answers {
    /// Removes the expired answers, or all answers where that does not make
    /// enough room.
    fn make_room(&mut self, number: usize, now: Duration, time: Duration) {
        let is_full = self.all.len() + number > ANSWERS_MAX;
        if now < self.tidy_at && !is_full {
            return;
        }
        self.tidy_at = now.saturating_add(time);
        self.all.retain(|_, answer| now < answer.until);
        // Otherwise each further answer would scan for expired ones again.
        if self.all.len() + number > ANSWERS_MAX / 2 && is_full {
            self.all.clear();
        }
        if self.all.len() < self.all.capacity() / 8 {
            self.all.shrink_to_fit();
        }
    }
}

/// Whether trytond may publish the chat of a record on this channel. Its form
/// is `chat:<model>,<id>`, with the id as Python writes it.
fn is_of_a_record(chat: &str) -> bool {
    let Some((model, id)) = chat
        .strip_prefix("chat:")
        .and_then(|resource| resource.split_once(','))
    else {
        return false;
    };
    // PostgreSQL accepts no null character.
    chat.len() <= NAME_MAX
        && !model.is_empty()
        && !model.contains(char::is_control)
        && id.starts_with(|digit| matches!(digit, '1'..='9'))
        && id.parse::<i64>().is_ok()
}

/// The key of an answer in the cache.
fn key(database: &str, user: u32, chat: &str) -> SmallVec<[u8; 128]> {
    let mut key = SmallVec::new();
    key.extend_from_slice(&user.to_le_bytes());
    key.extend_from_slice(&database.len().to_le_bytes());
    key.extend_from_slice(database.as_bytes());
    key.extend_from_slice(chat.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(chats: &[&str]) -> Poll {
        Poll::new(chats.iter().map(|chat| (*chat).into()))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn names(chats: &[&str]) -> Vec<Box<str>> {
        chats.iter().map(|chat| Box::from(*chat)).collect()
    }

    #[test]
    fn answer_is_remembered_for_its_user_and_database() {
        let access = Access::default();
        let poll = poll(&["user:1", "chat:a,1", "chat:a,2", "client:x"]);
        let asked = names(&["chat:a,1", "chat:a,2"]);
        let nothing = Known {
            readable: vec![],
            unknown: asked.clone(),
        };
        let known = |database, user, now| {
            let mut known = access.known(database, user, &poll, at(now));
            known.unknown.sort_unstable();
            known
        };
        assert_eq!(known("db", 1, 0), nothing);

        access.remember("db", 1, &asked, &asked[..1], at(0), at(30));

        let answered = Known {
            readable: names(&["chat:a,1"]),
            unknown: vec![],
        };
        assert_eq!(known("db", 1, 29), answered);
        assert_eq!(known("db", 1, 30), nothing);
        assert_eq!(known("db", 2, 29), nothing);
        assert_eq!(known("d", 1, 29), nothing);
    }

    #[test]
    fn only_names_of_chats_of_records_are_asked_for() {
        let long = format!("chat:{},1", "a".repeat(NAME_MAX));
        for (chat, is_asked) in [
            ("chat:res.user,1", true),
            ("chat:a,9223372036854775807", true),
            ("chat:a b' OR 1=1; --\u{e9}\u{1f600},1", true),
            ("chat:", false),
            ("chat:x", false),
            ("chat:,1", false),
            ("chat:a,", false),
            ("chat:a,0", false),
            ("chat:a,-1", false),
            ("chat:a,+1", false),
            ("chat:a,01", false),
            ("chat:a, 1", false),
            ("chat:a,1 ", false),
            ("chat:a,1.0", false),
            ("chat:a,1,2", false),
            ("chat:a,\u{661}", false),
            ("chat:a,9223372036854775808", false),
            ("chat:a\0,1", false),
            (&long, false),
        ] {
            let known = Access::default().known("db", 1, &poll(&[chat]), at(0));
            assert!(known.readable.is_empty());
            assert_eq!(!known.unknown.is_empty(), is_asked, "{chat:?}");
        }
    }

    #[test]
    fn answers_are_bounded_and_old_ones_forgotten() {
        let access = Access::default();
        let number = || lock(&access.0).all.len();
        let mut most = 0;
        for user in 0..1000 {
            let asked = (1..=256).map(|id| format!("chat:a,{id}").into());
            let asked: Vec<Box<str>> = asked.collect();
            access.remember("db", user, &asked, &asked, at(0), at(30));
            most = most.max(number());
        }
        assert!((50_000..=ANSWERS_MAX).contains(&most), "{most}");

        access.remember("db", 0, &names(&["chat:a,1"]), &[], at(30), at(30));
        assert_eq!(number(), 1);
        assert!(lock(&access.0).all.capacity() < 100);
    }
}
