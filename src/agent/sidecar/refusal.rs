//! Why the application's request was refused: which field, and what to do.
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::sdk::wire::Refused;

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// What it says.
    pub said: Refused,
}

impl Refusal {
    fn new(status: StatusCode, field: &str, message: String) -> Self {
        Self { status, said: Refused { field: field.to_owned(), message } }
    }

    /// The request cannot be understood.
    pub fn bad(field: &str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, field, message)
    }

    /// There is no such thing here, or not any more.
    pub fn unknown(field: &str, message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, field, message)
    }

    /// Another is in the way.
    pub fn conflict(field: &str, message: String) -> Self {
        Self::new(StatusCode::CONFLICT, field, message)
    }

    /// More than is taken.
    pub fn too_large(field: &str, message: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, field, message)
    }

    /// The request does not come from a program of this Pod.
    pub fn foreign(header: &str, message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, header, message.to_owned())
    }

    /// The request does not show that it comes from a container with the shared folder.
    pub fn without_token() -> Self {
        let message = "is missing or is that of an earlier agent: send what the file agent.token of the shared folder \
                       (/baton) has, read anew for each request";
        Self::new(StatusCode::UNAUTHORIZED, "Baton-Token", message.to_owned())
    }

    /// The agent has not yet taken in what was said before.
    pub fn busy() -> Self {
        let message = "more was said than the agent has taken in: say less often, and this again in a second";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "request", message.to_owned())
    }

    /// What would be told cannot be written down for the next agent of the Pod.
    pub fn unwritten() -> Self {
        let message = "the agent cannot write into the folder that it shares with its successors: see its log, and whether \
                       the volume is full; then this again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "request", message.to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.said)).into_response()
    }
}
