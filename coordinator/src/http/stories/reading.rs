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
