//! Stories of acts that say less than they need.

use super::*;
use crate::http::wire::{OverviewView, QueueView};

#[tokio::test]
async fn a_bulk_operation_that_names_nothing_is_refused() {
    let world = World::start().await;
    world.submit("one").await;
    world.submit("two").await;
    for filter in [json!({}), json!({ "waiting": false })] {
        let body = json!({ "filter": filter, "act": "cancel" });
        let answer = world.post("/api/v1/bulk", body).await;
        answer.is_invalid(&["every job", "owner", "\"waiting\": true"]);
    }
    assert_eq!(world.jobs("state=waiting").await.len(), 2);
    // All that wait may be meant, and is said so.
    let all = json!({ "filter": { "waiting": true }, "act": "cancel" });
    let done: BulkView = world.post("/api/v1/bulk", all).await.json();
    assert_eq!((done.changed, done.finished), (2, true));
}

#[tokio::test]
async fn an_empty_value_is_refused_where_something_has_to_be_named() {
    let world = World::start().await;
    world.submit("one").await;
    for field in ["owner", "submission", "architecture", "name"] {
        let body = json!({ "filter": { field: "", "waiting": true }, "act": "cancel" });
        let answer = world.post("/api/v1/bulk", body).await;
        answer.is_invalid(&[if field == "submission" {
            "no submission"
        } else {
            field
        }]);
    }
    for field in ["state", "owner", "arch", "name", "submission", "cursor"] {
        let path = format!("/api/v1/jobs?{field}=");
        world.ask(Method::GET, &path, "").await.is_invalid(&[]);
    }
    let brake = json!({ "architecture": "", "least": 5 });
    let answer = world.post("/api/v1/brake", brake).await;
    answer.is_invalid(&["architecture"]);
    let package = json!({ "name": "foo", "version": "1", "architecture": "all", "suite": "" });
    for field in ["name", "version", "architecture"] {
        let mut without = package.clone();
        without[field] = json!("");
        let answer = world.post("/api/v1/packages", without).await;
        answer.is_invalid(&[field]);
    }
    let answer = world.post("/api/v1/packages", package).await;
    assert_eq!(answer.status, StatusCode::OK, "a suite may be empty");
    assert_eq!(world.jobs("state=waiting").await, ["one"]);
}

#[tokio::test]
async fn a_brake_is_lifted_by_null_and_never_by_leaving_it_out() {
    let world = World::start().await;
    let job = world.submit("slow").await;
    let path = format!("/api/v1/jobs/{job}/explain");
    let braked = async || {
        let explained: ExplainView = world.get(&path).await;
        explained.plan.unwrap().summary.contains("brake at 50")
    };
    let shown = async || {
        let queue: QueueView = world.get("/api/v1/queue").await;
        let overview: OverviewView = world.get("/api/v1/overview").await;
        assert_eq!(queue.brakes, overview.brakes);
        queue
            .brakes
            .into_iter()
            .map(|brake| brake.least)
            .collect::<Vec<_>>()
    };
    assert_eq!(shown().await, [0; 0]);
    let set = world.post("/api/v1/brake", json!({ "least": 50 })).await;
    assert_eq!(shown().await, [50]);
    assert_eq!((set.status, braked().await), (StatusCode::OK, true));
    for body in [json!({}), json!({ "reason": "oops" })] {
        let answer = world.post("/api/v1/brake", body).await;
        answer.is_invalid(&["least"]);
    }
    world.ask(Method::POST, "/api/v1/brake", "").await.problem();
    assert!(braked().await);
    let lift = json!({ "least": null });
    let lifted = world.post("/api/v1/brake", lift).await;
    assert_eq!((lifted.status, braked().await), (StatusCode::OK, false));
    assert_eq!(shown().await, [0; 0]);
}

#[tokio::test]
async fn a_reporter_whom_nobody_can_be_is_refused() {
    let world = World::start().await;
    for reporter in ["", "%20"] {
        let path = format!("/api/v1/builders/b1/reset-rule?when=after&reporter={reporter}");
        let answer = world.post(&path, json!(null)).await;
        answer.is_invalid(&["the reporter is empty"]);
    }
}
