//! Stories of those who look on: events, the page, metrics.

use super::*;

#[tokio::test]
async fn events_go_on_where_a_reader_stopped() {
    let world = World::start().await;
    world.submit(vec![job("first")]).await;
    let mut answer = world
        .context
        .client
        .stream("/api/v1/events?follow=1")
        .await
        .unwrap();
    let mut text = String::new();
    while !text.contains("first") {
        let piece = answer.piece().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    world.submit(vec![job("second")]).await;
    while !text.contains("second") {
        let piece = answer.piece().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let events: Vec<EventView> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<_> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected, "no gap, nothing twice");
    let after = numbers.len().to_string();
    assert_eq!(
        world.types(&["events", "--after", &after]).await,
        Ok(Exit::Ok)
    );
}

#[tokio::test]
async fn the_page_is_whole_without_javascript_and_lives_with_it() {
    let world = World::start().await;
    world
        .submit(vec![job("<script>alert(1)</script>\u{202e}")])
        .await;
    let mut answer = world.tcp.client.stream("/").await.unwrap();
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
    let mut html = String::new();
    while let Some(piece) = answer.piece().await.unwrap() {
        html.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(html.contains("&#60;script&#62;alert(1)") || html.contains("&lt;script&gt;alert(1)"));
    assert!(!html.contains("<script>alert") && !html.contains('\u{202e}'));

    let mut live = world.tcp.client.stream("/live").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("verdicts") {
        let piece = live.piece().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
    world.submit(vec![job("a-newcomer")]).await;
    while !seen.contains("a-newcomer") {
        let piece = live.piece().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
}

#[tokio::test]
async fn metrics_are_given_in_both_formats() {
    let world = World::start().await;
    world.submit(vec![job("waiting")]).await;
    let mut answer = world.tcp.client.stream("/metrics").await.unwrap();
    assert!(answer.header("content-type").unwrap().contains("0.0.4"));
    let mut text = String::new();
    while let Some(piece) = answer.piece().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    for line in [
        "farmbell_jobs{state=\"waiting\"} 1",
        "# TYPE farmbell_events_total counter",
        "# TYPE farmbell_store_commit_seconds histogram",
        "farmbell_verdicts_total{verdict=\"failed\"} 0",
        "farmbell_store_stalled 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in:\n{text}"
        );
    }
}
