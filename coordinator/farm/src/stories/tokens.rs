//! Join tokens.

use super::*;

#[test]
fn a_token_is_used_as_often_as_it_allows() {
    let mut world = World::new();
    let token = world.token(2, Envelope::default());
    assert_eq!(world.join(token, 1, SECRET), CloseCode::Done);
    assert_eq!(world.join(token, 1, SECRET), CloseCode::Done, "said again");
    assert_eq!(world.join(token, 2, SECRET), CloseCode::Done);
    assert_eq!(world.join(token, 3, SECRET), CloseCode::TokenUsed);
}

#[test]
fn a_wrong_a_revoked_and_an_old_token_are_refused_by_name() {
    let mut world = World::new();
    let token = world.token(1, Envelope::default());
    assert_eq!(world.join(token, 1, [0; 16]), CloseCode::TokenWrong);
    assert_eq!(world.join(token + 1, 1, SECRET), CloseCode::TokenWrong);
    let revoked = world.token(1, Envelope::default());
    let why = Text::default();
    let revoke = Command::TokenRevoke {
        token: revoked,
        why,
    };
    world.ask(revoke).unwrap();
    assert_eq!(world.join(revoked, 1, SECRET), CloseCode::TokenRevoked);
    world.pass(Duration::from_secs(3601));
    assert_eq!(world.join(token, 1, SECRET), CloseCode::TokenExpired);
    assert_eq!(world.store.kinds().last(), Some(&LedgerKind::TokenRefused));
}

#[test]
fn an_agents_name_is_its_own() {
    let mut world = World::new();
    world.host(1);
    let token = world.token(1, Envelope::default());
    let conn = world.conn();
    world.handle(Event::Join {
        conn,
        key: KeyHash([2; 32]),
        address: Text::default(),
        join: Join {
            token,
            secret: SECRET,
            name: name("host1"),
            software: name("x"),
        },
    });
    assert_eq!(world.close_code(), Some(CloseCode::NameTaken));
}

#[test]
fn only_tokens_that_can_still_be_used_count_against_the_limit() {
    let mut settings = Settings::default();
    settings.limits.tokens = 2;
    let mut world = World::with(settings);
    let create = |world: &mut World, uses, ttl_ms| {
        world.ask(Command::TokenCreate {
            uses,
            ttl_ms,
            envelope: Envelope::default(),
            secret_hash: Digest::of(&SECRET).0,
        })
    };
    assert!(create(&mut world, 0, 1).is_err() && create(&mut world, 1, 0).is_err());
    let used = world.token(1, Envelope::default());
    let revoked = world.token(1, Envelope::default());
    let refused = create(&mut world, 1, 1000).unwrap_err();
    assert!(refused.cause.contains("2 tokens"), "{refused:?}");
    let why = Text::default();
    let revoke = Command::TokenRevoke {
        token: revoked,
        why,
    };
    world.ask(revoke).unwrap();
    create(&mut world, 1, 1000).unwrap();
    assert!(create(&mut world, 1, 1000).is_err());
    assert_eq!(world.join(used, 1, SECRET), CloseCode::Done);
    create(&mut world, 1, 3_600_000).unwrap();
    assert!(create(&mut world, 1, 1000).is_err());
    world.pass(Duration::from_secs(2));
    create(&mut world, 1, 1000).unwrap();
}

#[test]
fn a_tokens_time_is_over_to_the_millisecond() {
    let mut settings = Settings::default();
    settings.limits.tokens = 1;
    let mut world = World::with(settings);
    let create = |world: &mut World| {
        let reply = world.ask(Command::TokenCreate {
            uses: 5,
            ttl_ms: 1000,
            envelope: Envelope::default(),
            secret_hash: Digest::of(&SECRET).0,
        });
        match reply {
            Ok(Reply::Token(token)) => Some(token),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    };
    let token = create(&mut world).unwrap();
    assert_eq!(token.created, at(world.now).wall);
    assert_eq!(token.expires_wall.0, token.created.0 + 1000);
    assert!((1..1 << 40).contains(&token.id), "a number to be typed");
    world.pass(Duration::from_millis(999));
    assert_eq!(world.join(token.id, 1, SECRET), CloseCode::Done);
    assert!(create(&mut world).is_none());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.join(token.id, 2, SECRET), CloseCode::TokenExpired);
    assert!(create(&mut world).is_some(), "it counts no more");
}

#[test]
fn a_token_that_does_not_exist_cannot_be_revoked_and_the_others_are_listed() {
    let mut world = World::new();
    let token = world.token(1, Envelope::default());
    let revoke = |token| Command::TokenRevoke {
        token,
        why: Text::new("typo").unwrap(),
    };
    let refused = world.ask(revoke(token + 1)).unwrap_err();
    assert_eq!(refused.code, crate::effect::RefusedCode::NotFound);
    world.ask(revoke(token)).unwrap();
    let Ok(Reply::Tokens(tokens)) = world.ask(Command::Tokens) else {
        panic!("refused");
    };
    let told: Vec<(u64, bool)> = tokens.iter().map(|one| (one.id, one.revoked)).collect();
    assert_eq!(told, [(token, true)]);
}
