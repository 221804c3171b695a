//! From a refusal to an HTTP answer. Owns which status stands for which code.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use farmbell_farm::effect::{Refused, RefusedCode};

use super::wire::{Code, Problem};
use crate::driver::Unavailable;
use crate::store::QueryError;

pub(super) type Result<T> = std::result::Result<T, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Ambiguous | Code::Invalid => StatusCode::BAD_REQUEST,
            Code::Conflict | Code::Unmatched | Code::Suspect => StatusCode::CONFLICT,
            Code::Corrupt => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Limit => StatusCode::TOO_MANY_REQUESTS,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::Stalled | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, Json(self)).into_response()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let code = match refused.code {
            RefusedCode::NotFound => Code::NotFound,
            RefusedCode::Conflict => Code::Conflict,
            RefusedCode::Invalid => Code::Invalid,
            RefusedCode::Limit => Code::Limit,
            RefusedCode::Unmatched => Code::Unmatched,
            RefusedCode::Suspect => Code::Suspect,
        };
        Self::new(code, refused.cause, refused.fix)
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let (code, fix) = match &unavailable {
            Unavailable::Stalled(_) => (
                Code::Stalled,
                "Free the coordinator's disk, or end what holds its store; it goes on by itself.",
            ),
            Unavailable::Busy | Unavailable::Gone(_) => {
                (Code::Unavailable, "Try again in a moment.")
            }
        };
        Self::new(code, unavailable.to_string(), fix)
    }
}

impl From<QueryError> for Problem {
    fn from(e: QueryError) -> Self {
        internal(&e)
    }
}

/// A fault of the coordinator's own; its operator finds it in the journal too.
pub(super) fn internal(e: &dyn std::error::Error) -> Problem {
    tracing::error!(error = %e, "a request failed by a fault of the coordinator's own");
    Problem::new(
        Code::Internal,
        e.to_string(),
        "See the coordinator's journal: journalctl -u farmbell-coordinator",
    )
}

pub(super) fn invalid(cause: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem::new(Code::Invalid, cause, fix)
}

pub(super) fn not_found(cause: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem::new(Code::NotFound, cause, fix)
}
