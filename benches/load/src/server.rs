//! The server that is measured: ours, trytond, or nginx with nchan.
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Clients;

/// The ticks of `/proc/*/stat` in a second.
const TICKS: f64 = 100.0;

/// A server in processes of its own.
pub(crate) struct Server {
    child: Child,
    /// The process that holds the polls, if the child is not it.
    id: u32,
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// A server that publishes the lines of its input.
    Bus(ChildStdin, BufReader<ChildStdout>),
    /// nginx with nchan, the connection to publish by, and the directory of
    /// its files.
    Nchan(TcpStream, PathBuf),
}

impl Server {
    /// Starts it; nginx if that is the name of the program.
    pub(crate) fn start(path: &str, arguments: &[String]) -> io::Result<Self> {
        if Path::new(path).ends_with("nginx") {
            return Self::start_nchan(path, arguments);
        }
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default();
        let address = address.parse().map_err(io::Error::other)?;
        let id = words.next().map(str::parse).transpose();
        Ok(Self {
            id: id.map_err(io::Error::other)?.unwrap_or(child.id()),
            child,
            address,
            kind: Kind::Bus(input, output),
        })
    }

    /// With the argument `checked` it asks a location that answers at once for
    /// each request, as for a session.
    fn start_nchan(path: &str, arguments: &[String]) -> io::Result<Self> {
        let checks = arguments.iter().any(|argument| argument == "checked");
        // Free a moment ago, which is good enough here.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory =
            std::env::temp_dir().join(format!("load-nchan-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration(&directory, address, checks))?;
        let child = Command::new(path)
            .arg("-p")
            .arg(&directory)
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()?;
        let until = Instant::now() + Duration::from_secs(10);
        let publisher = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        publisher.set_nodelay(true)?;
        // Its answers say nothing of interest, but have to be read.
        let mut answers = publisher.try_clone()?;
        std::thread::spawn(move || io::copy(&mut answers, &mut io::sink()));
        Ok(Self {
            id: child.id(),
            child,
            address,
            kind: Kind::Nchan(publisher, directory),
        })
    }

    /// Publishes the message of this number.
    pub(crate) fn publish(&mut self, channel: &str, number: u64) -> io::Result<()> {
        let message = format!(
            "{{\"type\": \"text\", \"title\": \"A title\", \"body\": \"Some text of \
             the usual length\", \"priority\": 1, \"message_id\": \"{}\"}}",
            crate::client::id(number)
        );
        match &mut self.kind {
            Kind::Bus(input, _) => {
                input.write_all(format!("{channel} {message}\n").as_bytes())
            }
            Kind::Nchan(publisher, _) => {
                // The answer of our server, to the byte.
                let body =
                    format!("{{\"message\":{message},\"channel\":\"{channel}\"}}");
                let request = format!(
                    "POST /publish/{channel} HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n\
                     {body}",
                    body.len()
                );
                publisher.write_all(request.as_bytes())
            }
        }
    }

    /// How many polls wait at the server.
    fn waiting(&mut self) -> io::Result<usize> {
        let mut text = String::new();
        match &mut self.kind {
            Kind::Bus(input, output) => {
                input.write_all(b"waiting\n")?;
                output.read_line(&mut text)?;
            }
            Kind::Nchan(..) => {
                let mut stream = TcpStream::connect(self.address)?;
                stream.write_all(
                    b"GET /status HTTP/1.1\r\nHost: localhost\r\n\
                      Connection: close\r\n\r\n",
                )?;
                stream.read_to_string(&mut text)?;
                let count = text
                    .lines()
                    .find_map(|line| line.strip_prefix("subscribers: "));
                text = count.unwrap_or_default().to_owned();
            }
        }
        text.trim().parse().map_err(io::Error::other)
    }

    /// The CPU that its database has used, in seconds.
    pub(crate) fn database_cpu(&mut self) -> io::Result<f64> {
        let Kind::Bus(input, output) = &mut self.kind else {
            return Ok(0.0);
        };
        let mut text = String::new();
        input.write_all(b"cpu\n")?;
        output.read_line(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Waits until this number of polls wait at the server.
    pub(crate) fn wait_for(
        &mut self,
        polls: usize,
        clients: &mut Clients,
    ) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(300);
        loop {
            clients.rest(Duration::from_millis(10))?;
            let waiting = self.waiting()?;
            if waiting == polls {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{waiting} polls wait")));
            }
        }
    }

    /// Its processes: nginx has workers.
    fn processes(&self) -> io::Result<Vec<String>> {
        let id = self.id;
        let children = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(children)?;
        let mut all = vec![id.to_string()];
        all.extend(children.split_whitespace().map(str::to_owned));
        Ok(all)
    }

    /// Its resident memory in bytes. Shared memory of its processes counts
    /// once.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let mut sum = 0;
        for process in self.processes()? {
            let memory = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let line = memory.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kilobytes = line.and_then(|line| line.split_whitespace().next());
            let kilobytes = kilobytes.and_then(|text| text.parse::<u64>().ok());
            sum += kilobytes.unwrap_or_default() * 1024;
        }
        Ok(sum)
    }

    /// The CPU that it has used, in seconds.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        self.processes()?.iter().map(|process| cpu(process)).sum()
    }
}

/// A message is kept for the same time as in ours, in any number.
fn configuration(directory: &Path, address: SocketAddr, checks: bool) -> String {
    let check = if checks { "auth_request /session;" } else { "" };
    let module = "/usr/lib/nginx/modules/ngx_nchan_module.so";
    let directory = directory.display();
    format!(
        r"load_module {module};
daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid {directory}/pid;
error_log {directory}/error.log crit;
events {{ worker_connections 15000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 10000000;
    tcp_nodelay on;
    nchan_max_reserved_memory 256M;
    nchan_message_timeout 300s;
    nchan_message_buffer_length 10000;
    server {{
        listen {address} backlog=4096;
        location = /status {{ nchan_stub_status; }}
        location ~ ^/publish/(.+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
        }}
        location = /session {{
            internal;
            return 204;
        }}
        location ~ ^/poll/(.+)/(.+)$ {{
            {check}
            nchan_subscriber longpoll;
            nchan_subscriber_timeout 300s;
            nchan_subscriber_first_message newest;
            nchan_channel_id $1 $2;
        }}
    }}
}}
"
    )
}

/// The CPU that a process has used, in seconds.
pub(crate) fn cpu(process: &str) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before may have spaces, and is in parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    Ok(ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS)
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Bus(input, _) => {
                // This ends the server, and the programs that it has started.
                let _ = input.write_all(b"end\n");
                let _ = self.child.wait();
            }
            Kind::Nchan(_, directory) => {
                // The workers would outlive a master that is killed.
                let id = self.child.id().to_string();
                let _ = Command::new("kill").arg(id).status();
                let _ = self.child.wait();
                let _ = fs::remove_dir_all(directory);
            }
        }
    }
}
