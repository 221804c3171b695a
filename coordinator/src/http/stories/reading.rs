//! Stories of those who look.

use super::*;

#[tokio::test]
async fn a_job_that_ends_while_it_is_looked_at_fails_no_look() {
    let world = World::start().await;
    let job = world.submit("brief").await;
    let seen = world.stored(job).await;
    let waits = jobs::explained(&world.api, seen.clone()).await.unwrap();
    assert!(waits.plan.is_some(), "{waits:?}");
    assert_ne!(queue::reason(&world.api, job).await, Ok(String::new()));
    world.act(job, "cancel").await;

    // The queue and the page listed it, and then ask why it waits.
    assert_eq!(queue::reason(&world.api, job).await, Ok(String::new()));
    // An explanation read it as waiting.
    let explained = jobs::explained(&world.api, seen).await.unwrap();
    assert_eq!(explained.plan, None);
    assert_eq!(explained.job.verdict.unwrap().verdict, "cancelled");
}

#[tokio::test]
async fn jobs_are_found_by_the_words_that_their_list_shows() {
    let world = World::start().await;
    let held = world.submit("held").await;
    world.act(held, "suspend").await;
    world.submit("free").await;
    let ended = world.submit("ended").await;
    world.act(ended, "suspend").await;
    world.act(ended, "cancel").await;
    assert_eq!(world.jobs("state=suspended").await, ["held"]);
    assert_eq!(world.jobs("state=waiting").await, ["free", "held"]);
    assert_eq!(world.jobs("state=cancelling").await, [""; 0]);
}
