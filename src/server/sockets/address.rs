//! An address to listen on.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path that the system accepts for a socket.
const PATH_MAX: usize = 107;

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
            return if !Path::new(path).is_absolute() {
                Err(format!("the path of '{text}' is not absolute"))
            } else if path.len() > PATH_MAX {
                Err(format!(
                    "the path of '{text}' has more than {PATH_MAX} bytes"
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("'{text}' has no port"))?;
        let port = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| format!("'{port}' in '{text}' is not a port"))?;
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
                "localhost:+80",
                Err("'+80' in 'localhost:+80' is not a port"),
            ),
            ("localhost:", Err("'' in 'localhost:' is not a port")),
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

    #[test]
    fn path_that_the_system_does_not_accept_is_refused() {
        let directory = std::env::temp_dir();
        let length = PATH_MAX - directory.as_os_str().len() - 1;
        let path = directory.join(format!("{:x<length$}", std::process::id()));
        let longest = format!("unix:{}", path.display());
        let address = longest.parse::<Address>().expect("it is not too long");
        address.bind().expect("the system accepts it");
        std::fs::remove_file(path).expect("it is there");
        let error = format!("{longest}x")
            .parse::<Address>()
            .expect_err("too long");
        assert!(error.ends_with("has more than 107 bytes"), "{error}");
    }
}
