//! The body of a request, over any version of HTTP.
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Version;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::server::config::Limits;
use crate::server::request::received::BodyError;

/// Reads the body of a request, over any version of HTTP. It takes room where
/// that is bounded.
pub(crate) async fn read_body(
    parts: &Parts,
    mut body: Incoming,
    limits: &Limits,
    mut room: Option<&mut OwnedSemaphorePermit>,
) -> Result<Bytes, BodyError> {
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    let is_chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    // In HTTP/2 the frames tell where a body ends.
    if !has_length && !is_chunked && parts.version < Version::HTTP_2 {
        return Err(BodyError::NoLength);
    }
    if body
        .size_hint()
        .exact()
        .is_some_and(|size| size > limits.body_size as u64)
    {
        return Err(BodyError::TooLarge);
    }
    // Copied, because each part shares the whole buffer that it was read into.
    let mut whole = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            // Other frames, such as trailers, may follow a body.
            let Ok(part) = frame.map_err(|_| BodyError::Malformed)?.into_data() else {
                continue;
            };
            if whole.len() + part.len() > limits.body_size {
                return Err(BodyError::TooLarge);
            }
            if let Some(taken) = &mut room {
                let more = take(taken.semaphore(), part.len());
                taken.merge(more.ok_or(BodyError::NoRoom)?);
            }
            whole.extend_from_slice(&part);
        }
        Ok(())
    };
    timeout(limits.body_timeout, reading)
        .await
        .unwrap_or(Err(BodyError::TooSlow))?;
    Ok(whole.into())
}

/// Takes this number of bytes from the room of a connection, if it has them.
pub(crate) fn take(
    room: &Arc<Semaphore>,
    bytes: usize,
) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok()?;
    room.clone().try_acquire_many_owned(bytes).ok()
}
