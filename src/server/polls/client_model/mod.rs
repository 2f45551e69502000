//! Real clients, played against the server's knowledge of them. No message is
//! lost and none is shown twice, even if requests or answers are late, lost or
//! abandoned.
mod player;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::world::{Kind, Step, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize).prop_map(Step::Publish),
        6 => any::<usize>().prop_map(Step::Arrive),
        6 => any::<usize>().prop_map(Step::Answer),
        1 => any::<(usize, bool)>().prop_map(|(which, noticed)| Step::Lose(which, noticed)),
        1 => any::<usize>().prop_map(Step::Empty),
        1 => Just(Step::Register),
        1 => Just(Step::Close),
        1 => Just(Step::Renew),
        1 => prop_oneof![Just(100), Just(1000), Just(5000), Just(60_000)]
            .prop_map(|time| Step::Pass(Duration::from_millis(time))),
    ]
}

/// Plays these steps to the end.
fn play(kind: Kind, steps: &[Step]) {
    let mut world = World::new(kind);
    for step in steps {
        world.step(step);
    }
    world.finish();
}

#[test]
fn last_message_says_nothing_of_channels_that_its_poll_did_not_ask_for() {
    play(
        Kind::Web,
        &[
            Step::Renew,
            Step::Register,
            // The second loop asks for a channel more than the first one.
            Step::Arrive(1),
            Step::Publish(2),
            Step::Publish(2),
            Step::Lose(0, true),
            Step::Renew,
            Step::Publish(0),
            // The first one gets a message that came later, and from then on
            // asks for that channel as well.
            Step::Arrive(0),
            Step::Answer(0),
            Step::Renew,
            Step::Publish(0),
            Step::Arrive(2),
            Step::Arrive(2),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn client_is_shown_every_message_once(
        kind in prop_oneof![Just(Kind::Desktop), Just(Kind::Web)],
        steps in prop::collection::vec(step(), 0..60),
    ) {
        play(kind, &steps);
    }
}
