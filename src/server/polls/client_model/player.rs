//! Single clients, whose polls are answered at once.
use std::sync::Arc;
use std::time::Duration;

use super::world::{Kind, World, next};
use crate::history::History;
use crate::message::{Id, Message};
use crate::poll::Poll;
use crate::server::polls::client::{Client, Next, Woken};
use crate::server::polls::outcome::Outcome;

/// A client whose polls are answered at once, with the content of the answer.
struct Player {
    client: Client,
    history: History,
    now: Duration,
}

impl Player {
    fn new() -> Self {
        let World {
            client, history, ..
        } = World::new(Kind::Web);
        Self {
            client,
            history,
            now: Duration::ZERO,
        }
    }

    fn publish(&mut self, channel: &str, id: u64) -> Id {
        let json = format!("{{\"message_id\":{id}}}");
        let message = Message::new(channel, &json).expect("good");
        self.history.append(message, self.now).id().clone()
    }

    fn poll(&mut self, channels: &[&str], last: Option<&Id>) -> Option<Id> {
        self.now += Duration::from_secs(1);
        let poll = Poll::new(channels.iter().map(|name| (*name).into()));
        let (history, woken) = (&mut self.history, &mut Woken::new());
        let position = history.position(last, channels, self.now);
        let key = self
            .client
            .arrive(Arc::new(poll), last, position, self.now, woken);
        let next = next(&mut self.client, key, history, self.now);
        self.client.leave(key, true, woken);
        match next {
            Next::Answer(Outcome::Message(message)) => Some(message.id().clone()),
            _ => None,
        }
    }
}

#[test]
fn channel_that_is_opened_again_begins_after_the_newest_message() {
    const OWN: &str = "client:x";
    for names_last in [true, false] {
        let mut player = Player::new();
        let first = player.publish("chat:a,1", 1);
        assert_eq!(player.poll(&[OWN, "chat:a,1"], None).as_ref(), Some(&first));
        // The chat is closed.
        assert_eq!(player.poll(&[OWN], Some(&first)), None);
        player.publish("chat:a,1", 2);
        let own = player.publish(OWN, 3);
        assert_eq!(player.poll(&[OWN], Some(&first)).as_ref(), Some(&own));
        assert_eq!(player.poll(&[OWN], Some(&own)), None);
        // It is opened again, by a loop that continues or by a new one.
        let last = Some(&own).filter(|_| names_last);
        assert_eq!(player.poll(&[OWN, "chat:a,1"], last), None, "{names_last}");
        let next = player.publish("chat:a,1", 4);
        assert_eq!(player.poll(&[OWN, "chat:a,1"], last), Some(next));
    }
}

#[test]
fn client_that_comes_back_after_a_while_is_shown_nothing_twice() {
    const OWN: &str = "client:x";
    let mut player = Player::new();
    let first = player.publish("chat:a,1", 1);
    let second = player.publish(OWN, 2);
    assert_eq!(player.poll(&[OWN, "chat:a,1"], None).as_ref(), Some(&first));
    assert_eq!(
        player.poll(&[OWN, "chat:a,1"], Some(&first)).as_ref(),
        Some(&second)
    );
    player.client.forget_names();
    assert_eq!(player.poll(&["chat:a,1", OWN], Some(&second)), None);
    player.client.forget_names();
    let third = player.publish(OWN, 3);
    assert_eq!(player.poll(&[OWN], None), Some(third));
}
