//! Stories of requests that mean nothing: each is answered with a problem.

use super::*;

#[tokio::test]
async fn whatever_is_refused_says_why_and_what_to_do() {
    const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let world = World::start().await;
    for (method, path, status) in [
        (Method::GET, "/nothing", NOT_FOUND),
        (Method::GET, "/api/v1/nothing", NOT_FOUND),
        (Method::GET, "/api/v1", NOT_FOUND),
        (Method::GET, "/assets/nothing", NOT_FOUND),
        (Method::POST, "/api/v1/builders/b1/dance", NOT_FOUND),
        // A number that is none, and bytes that are no text.
        (Method::POST, "/api/v1/tokens/abc/revoke", BAD),
        (Method::GET, "/api/v1/jobs/%FF", BAD),
        (Method::GET, "/api/v1/jobs/%FF/log", BAD),
        (Method::GET, "/api/v1/artifacts/a/%FF", BAD),
        (Method::PUT, "/api/v1/blobs/%FF", BAD),
        (Method::POST, "/api/v1/agents/%FF/revoke", BAD),
        (Method::GET, "/api/v1/builders/%FF", BAD),
        (Method::GET, "/assets/%FF", BAD),
        (Method::GET, "/api/v1/jobs?limit=many", BAD),
        (Method::GET, "/api/v1/events?after=x", BAD),
        (Method::POST, "/api/v1/bulk", BAD),
    ] {
        let answer = world.ask(method, path, "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let problem = answer.problem();
        if path.ends_with("/nothing") && !path.starts_with("/assets") {
            assert!(problem.cause.ends_with(path), "{problem:?}");
        }
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_a_problem_with_those_it_takes() {
    let world = World::start().await;
    for (method, path, takes) in [
        (Method::GET, "/api/v1/bulk", "POST"),
        (Method::DELETE, "/api/v1/jobs", "GET,HEAD"),
        (Method::PUT, "/api/v1/tokens", "GET,HEAD,POST"),
        (Method::GET, "/api/v1/builders/b1/drain", "POST"),
        (Method::POST, "/", "GET,HEAD"),
        (Method::POST, "/healthz", "GET,HEAD"),
    ] {
        let answer = world.ask(method.clone(), path, "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers["allow"], takes, "{path}");
        answer.is_invalid(&[method.as_str(), "Allow"]);
    }
}
