//! An address to listen on.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address to listen on: `host:port`, `[v6]:port`, `*:port` or
/// `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host and a port. Without a host: all addresses of this machine.
    Tcp(Option<String>, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("the path of '{text}' is not absolute"))
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("'{text}' has no port"))?;
        let port = port
            .parse()
            .map_err(|_| format!("'{port}' in '{text}' is not a port"))?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare.unwrap_or(host) {
            "" => Err(format!("'{text}' has no host")),
            "*" => Ok(Self::Tcp(None, port)),
            host if bare.is_none() && host.contains(':') => {
                Err(format!("the host of '{text}' needs brackets"))
            }
            host => Ok(Self::Tcp(Some(host.to_owned()), port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(None, port) => write!(f, "*:{port}"),
            Self::Tcp(Some(host), port) if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp(Some(host), port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read() {
        let tcp =
            |host: Option<&str>, port| Ok(Address::Tcp(host.map(Into::into), port));
        for (text, address) in [
            ("localhost:8001", tcp(Some("localhost"), 8001)),
            ("127.0.0.1:0", tcp(Some("127.0.0.1"), 0)),
            ("[::1]:8001", tcp(Some("::1"), 8001)),
            ("*:8001", tcp(None, 8001)),
            (
                "unix:/run/bus.sock",
                Ok(Address::Unix("/run/bus.sock".into())),
            ),
            (
                "unix:bus.sock",
                Err("the path of 'unix:bus.sock' is not absolute"),
            ),
            ("localhost", Err("'localhost' has no port")),
            (":8001", Err("':8001' has no host")),
            ("::1:8001", Err("the host of '::1:8001' needs brackets")),
            ("localhost:x", Err("'x' in 'localhost:x' is not a port")),
            (
                "localhost:70000",
                Err("'70000' in 'localhost:70000' is not a port"),
            ),
        ] {
            let read = text.parse::<Address>();
            if let Ok(read) = &read {
                assert_eq!(read.to_string(), text);
            }
            assert_eq!(read, address.map_err(str::to_owned), "{text}");
        }
    }
}
