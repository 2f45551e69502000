//! Why a request is refused.
use hyper::StatusCode;

/// The answer to a request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The text of the body.
    pub(crate) text: &'static str,
    /// A further header.
    pub(crate) header: Option<(&'static str, &'static str)>,
}

/// The header that asks for a credential.
pub(crate) const CHALLENGE: &str = "www-authenticate";

impl Refusal {
    pub(crate) const UNAUTHORIZED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "there is no valid session")
            .with(CHALLENGE, "Basic realm=\"Tryton\"");

    pub(crate) const NOT_FOUND: Self = Self::new(
        StatusCode::NOT_FOUND,
        "there is no bus at this path, or no such database",
    );

    pub(crate) const TOO_MANY_POLLS: Self = Self::new(
        StatusCode::TOO_MANY_REQUESTS,
        "more than [bus] session_polls polls of this user wait",
    );

    /// A refusal without a further header.
    pub(crate) const fn new(status: StatusCode, text: &'static str) -> Self {
        Self {
            status,
            text,
            header: None,
        }
    }

    /// The same with a further header.
    pub(crate) const fn with(self, name: &'static str, value: &'static str) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }
}
