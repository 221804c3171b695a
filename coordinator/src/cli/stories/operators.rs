//! Stories of who may do what, and of tokens.

use super::*;

#[tokio::test]
async fn over_tcp_everyone_reads_and_the_token_writes() {
    let world = World::start().await;
    world
        .submit(vec![
            job("open"),
            Spec {
                private: true,
                ..job("secret")
            },
        ])
        .await;
    let list: JobList = world.tcp.client.get("/api/v1/jobs").await.unwrap();
    assert_eq!(list.jobs.len(), 1, "private jobs do not exist for readers");
    let id = list.jobs[0].id.as_str();
    let refused = failure(types(&world.tcp, &["job", "cancel", id]).await);
    assert_eq!(refused.exit, Exit::NotAllowed);
    assert!(refused.fix.contains("api.token"), "{}", refused.fix);

    let with = |token: &str| match world.tcp.client.endpoint().clone() {
        Endpoint::Tcp { host, port, .. } => context(Endpoint::Tcp {
            host,
            port,
            token: Some(token.to_owned()),
        }),
        Endpoint::Unix(_) => unreachable!("the world's second context is TCP"),
    };
    let wrong = failure(types(&with("guess"), &["job", "cancel", id]).await);
    assert_eq!(wrong.exit, Exit::NotAllowed);
    let right = types(&with(TOKEN), &["job", "cancel", id]).await;
    assert_eq!(right, Ok(Exit::Ok));
}

#[tokio::test]
async fn a_private_job_is_explained_to_operators_and_is_not_there_for_readers() {
    let world = World::start().await;
    let secret = Spec {
        private: true,
        ..job("secret")
    };
    let submitted = world.submit(vec![secret]).await;
    let id = submitted.jobs[0].id.as_str();
    assert_eq!(world.types(&["job", "explain", id]).await, Ok(Exit::Ok));
    let never = failure(types(&world.tcp, &["job", "explain", "zzzzzzzz"]).await);
    for command in ["explain", "show"] {
        // Neither its whole id nor the beginning of one tells that it exists.
        for text in [id, &id[..7]] {
            let refused = failure(types(&world.tcp, &["job", command, text]).await);
            assert_eq!(refused.exit, never.exit);
            let said = refused.to_string();
            assert_eq!(said.replace(text, "zzzzzzzz"), never.to_string());
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_can_be_revoked() {
    let world = World::start().await;
    let request = TokenCreate {
        uses: 2,
        ttl_ms: 60_000,
        envelope: http::wire::EnvelopeView::default(),
    };
    let created: TokenCreated = world
        .context
        .client
        .post("/api/v1/tokens", &request)
        .await
        .unwrap();
    let token: farmbell_protocol::client::token::Token = created.token.parse().unwrap();
    assert_eq!(
        (token.id, token.coordinator),
        (created.view.id, KeyHash([7; 32]))
    );
    assert_eq!(world.types(&["token", "list"]).await, Ok(Exit::Ok));
    let id = created.view.id.to_string();
    assert_eq!(world.types(&["token", "revoke", &id]).await, Ok(Exit::Ok));
    let unknown = failure(world.types(&["token", "revoke", "1"]).await);
    assert_eq!(unknown.exit, Exit::NotFound);
    let over_tcp = failure(types(&world.tcp, &["token", "list"]).await);
    assert_eq!(over_tcp.exit, Exit::NotAllowed);
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let world = World::start().await;
    for line in [
        &["builder", "drain", "b1"][..],
        &["builder", "show", "b1"],
        &["agent", "revoke", "a1"],
        &["artifacts", "zzzzzzzz"],
    ] {
        let refused = failure(world.types(line).await);
        assert_eq!(refused.exit, Exit::NotFound, "{line:?}: {refused}");
        assert!(!refused.fix.is_empty(), "{line:?}");
    }
    let strange = world
        .context
        .client
        .get::<OverviewView>("/api/v1/nothing")
        .await;
    assert_eq!(failure(strange).exit, Exit::NotFound);
    assert_eq!(world.types(&["builders"]).await, Ok(Exit::Ok));
    assert_eq!(world.types(&["agents"]).await, Ok(Exit::Ok));
}
