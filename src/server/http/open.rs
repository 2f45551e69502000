//! A connection as the server counts it.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::server::app::App;
use crate::server::metrics::Counted;

/// How long a request may be on its way before the connection counts as idle,
/// so that its place can be given to another connection.
pub(crate) const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// A connection that is counted, until this is dropped.
pub(crate) struct Open {
    app: Arc<App>,
    _counted: Counted,
    /// Held while the connection is open.
    _place: OwnedSemaphorePermit,
}

impl Open {
    pub(crate) fn new(app: &Arc<App>, place: OwnedSemaphorePermit) -> Self {
        Self {
            _counted: Counted::by(&app.metrics.connections),
            app: app.clone(),
            _place: place,
        }
    }

    /// The server.
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }
}
