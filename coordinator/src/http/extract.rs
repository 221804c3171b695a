//! What a request says, read or refused with a [`Problem`]: paths, query strings
//! and JSON bodies. Owns the limit on bodies that are held in memory.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::invalid;
use super::wire::{Code, Problem};

/// The largest JSON body: 256 jobs with long parameters fit many times over,
/// and a hundred such requests at once still fit into memory.
pub(super) const JSON_MAX: usize = 8 << 20;

/// What the variable parts of the path say.
#[derive(Debug)]
pub(super) struct Addressed<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Addressed<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Path::<T>::from_request_parts(parts, state)
            .await
            .map(|Path(said)| Self(said))
            .map_err(|e| invalid(e.body_text(), "Check that part of the path."))
    }
}

/// The query string.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(asked)| Self(asked))
            .map_err(|e| invalid(e.body_text(), "Check the names and values after the '?'."))
    }
}

/// What a field names, if it was given. An empty value names nothing, and is
/// refused: whoever's variable was empty did not mean everything.
pub(super) fn named<'t>(field: &str, text: Option<&'t str>) -> Result<Option<&'t str>, Problem> {
    if text.is_some_and(|text| text.trim().is_empty()) {
        return Err(invalid(
            format!("the {field} is empty"),
            "Name one, or leave the field out where it may be.",
        ));
    }
    Ok(text)
}

/// A JSON body; an empty one stands for `null`.
#[derive(Debug)]
pub(super) struct Said<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Said<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|e| {
            Problem::new(
                Code::Limit,
                e.body_text(),
                format!(
                    "A body may have {} MiB; submit fewer jobs at once.",
                    JSON_MAX >> 20
                ),
            )
        })?;
        let json: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(json).map(Self).map_err(|e| {
            invalid(
                format!("the body is not what this wants: {e}"),
                "Check its fields.",
            )
        })
    }
}
