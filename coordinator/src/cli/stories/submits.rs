//! Stories of submits: keys, inputs, what is refused.

use super::*;

#[tokio::test]
async fn a_submit_with_its_key_repeated_makes_one_job() {
    let world = World::start().await;
    let line = [
        "submit",
        "--allow-unmatched",
        "--arch",
        "amd64",
        "--idempotency-key",
        "k",
        "--",
        "true",
    ];
    for _ in 0..3 {
        assert_eq!(world.types(&line).await, Ok(Exit::Ok));
    }
    assert_eq!(world.jobs("").await, ["true"]);
}

#[tokio::test]
async fn inputs_are_uploaded_once_and_have_to_be_there() {
    let world = World::start().await;
    let input = world.file("input.txt", "some bytes");
    let line = [
        "submit",
        "--allow-unmatched",
        "--input",
        &input,
        "--",
        "cat",
    ];
    assert_eq!(world.types(&line).await, Ok(Exit::Ok));
    let digest = Digest::of(b"some bytes");
    assert!(world.context.client.has_blob(digest).await.unwrap());

    let mut missing = job("missing");
    missing.inputs.push(http::wire::InputSpec {
        name: "gone.txt".into(),
        digest: Digest::of(b"never sent").to_string(),
        length: 10,
        private: false,
    });
    let request = SubmitRequest {
        jobs: vec![missing],
        allow_unmatched: true,
    };
    let refused = world
        .context
        .client
        .post::<_, Submitted>("/api/v1/submissions", &request)
        .await;
    let refused = failure(refused);
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.cause.contains("gone.txt"), "{}", refused.cause);
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused() {
    let world = World::start().await;
    let path = world.file("a", "one thing");
    let other = Digest::of(b"another");
    let sent = world
        .context
        .client
        .put_blob(other, path.as_ref(), |_| {})
        .await;
    let refused = Failure::from(sent.unwrap_err());
    assert!(refused.cause.contains("BLAKE3"), "{}", refused.cause);
    assert!(!world.context.client.has_blob(other).await.unwrap());
}

#[tokio::test]
async fn what_nobody_can_build_is_refused_with_cause_and_fix() {
    let world = World::start().await;
    let refused = failure(
        world
            .types(&["submit", "--arch", "vax", "--", "true"])
            .await,
    );
    assert_eq!(refused.exit, Exit::Refused);
    assert!(!refused.cause.is_empty() && !refused.fix.is_empty());
    let line = ["submit", "--dry-run", "--arch", "vax", "--", "true"];
    assert_eq!(world.types(&line).await, Ok(Exit::Refused));
    assert_eq!(world.jobs("").await, [""; 0]);
}

#[tokio::test]
async fn without_a_coordinator_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let alone = context(Endpoint::Unix(directory.path().join("no.sock")));
    let failure = failure(types(&alone, &["jobs"]).await);
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.fix.contains("--socket") && failure.command.is_some());
}
