//! The archive, as a file: resumed where its server can, tried again where that may help.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    time::Duration,
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_RANGE, ETAG, IF_RANGE, LOCATION, RANGE},
    redirect::Policy,
};
use tokio::time::{Instant, sleep};

use super::{
    Place,
    problem::{Problem, causes, local, rejected},
    roots,
    secret::Secret,
    tree::Limits,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Before the next try; doubled with each.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);
const REDIRECTS_MAX: usize = 10;
/// Between two lines about how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What is downloaded, and where to.
pub struct Download<'a> {
    pub url: &'a Url,
    pub secret: &'a Secret,
    pub place: &'a Place,
    /// How long the server may give nothing.
    pub patience: Duration,
    pub limits: Limits,
}

impl Download<'_> {
    /// Returns when the archive is whole.
    pub async fn run(&self) -> Result<(), Problem> {
        let client = self.client()?;
        // What a server that always breaks off gives again and again is no progress.
        let (mut reached, mut gained_at, mut pause) = (0, Instant::now(), PAUSE_MIN);
        loop {
            let why = match self.attempt(&client).await {
                Err(Problem::Unavailable(why)) => why,
                other => return other,
            };
            let length = self.length();
            if length > reached {
                (reached, gained_at, pause) = (length, Instant::now(), PAUSE_MIN);
            }
            let waited = gained_at.elapsed() + pause;
            if waited > self.patience {
                let seconds = self.patience.as_secs();
                return Err(Problem::Unavailable(format!("not to be had for {seconds} s: {why}")));
            }
            println!("{why}: trying again in {} s", pause.as_secs_f32());
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn client(&self) -> Result<Client, Problem> {
        let client = Client::builder()
            .user_agent(concat!("baton-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(Policy::none()) // see `ask`
            .tls_backend_preconfigured(roots::client_config(&self.secret.authorities)?);
        client.build().map_err(|error| Problem::Local(causes(&error.without_url())))
    }

    /// Bytes that were fetched so far.
    fn length(&self) -> u64 {
        fs::metadata(self.place.archive()).map_or(0, |file| file.len())
    }

    async fn attempt(&self, client: &Client) -> Result<(), Problem> {
        // Without a version of which the server says that it is the same byte by byte, all is fetched again.
        let known = fs::read_to_string(self.place.etag()).ok().filter(|_| self.length() > 0);
        let response = self.ask(client, known.as_deref()).await?;
        let part = part(&response).filter(|(first, _)| known.is_some() && *first == self.length());
        let (file, total) = match (response.status(), part) {
            (StatusCode::PARTIAL_CONTENT, Some((_, total))) => (self.resume(), Some(total)),
            (StatusCode::OK, _) => (self.begin(&response), response.content_length()),
            // Not what was asked for: it may have been asked for too much.
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                let _ = fs::remove_file(self.place.etag());
                return Err(Problem::Unavailable("the server cannot go on where it broke off".into()));
            }
            (status, _) => return Err(answered(status)),
        };
        self.receive(response, file.map_err(local("cannot write the archive"))?, total).await?;
        // A part may be less than what was asked for, and end early without a length of its own.
        let is_whole = total.is_none_or(|total| total == self.length());
        is_whole.then_some(()).ok_or_else(|| Problem::Unavailable("the server broke off".into()))
    }

    /// The answer of the server that the URL's own one redirects to, if it does. Only the URL's own is told the credentials:
    /// the client would send them again where a foreign server redirects within itself.
    async fn ask(&self, client: &Client, known: Option<&str>) -> Result<Response, Problem> {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = client.get(url.clone());
            if url.origin() == self.url.origin() {
                request = self.secret.sign(request);
            }
            if let Some(etag) = known {
                request = request.header(RANGE, format!("bytes={}-", self.length())).header(IF_RANGE, etag);
            }
            let response = request.send().await.map_err(unanswered)?;
            match redirect(&url, &response)? {
                None => return Ok(response),
                Some(next) => url = next,
            }
        }
        Err(rejected("redirected more than ten times"))
    }

    fn resume(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.place.archive())
    }

    fn begin(&self, response: &Response) -> io::Result<File> {
        let _ = fs::remove_file(self.place.etag());
        let file = File::create(self.place.archive())?;
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        if let Some(etag) = etag.filter(|etag| !etag.starts_with("W/")) {
            fs::write(self.place.etag(), etag)?;
        }
        Ok(file)
    }

    /// Writes what comes, and says how far it is.
    async fn receive(&self, mut response: Response, mut file: File, total: Option<u64>) -> Result<(), Problem> {
        let mut length = self.length();
        let of_total = total.map(|total| format!(" of {}", mebibytes(total))).unwrap_or_default();
        self.check(total.unwrap_or(length))?;
        let mut said_at = Instant::now();
        println!("downloading: {}{of_total} MiB are here", mebibytes(length));
        while let Some(piece) = response.chunk().await.map_err(unanswered)? {
            length = length.saturating_add(piece.len() as u64);
            self.check(length)?;
            file.write_all(&piece).map_err(local("cannot write the archive"))?;
            if said_at.elapsed() >= PROGRESS_EVERY {
                said_at = Instant::now();
                println!("{}{of_total} MiB are here", mebibytes(length));
            }
        }
        Ok(())
    }

    fn check(&self, bytes: u64) -> Result<(), Problem> {
        let max = self.limits.archive_bytes;
        if bytes <= max {
            return Ok(());
        }
        let _ = fs::remove_file(self.place.archive());
        Err(rejected(format!("the archive has more than {} MiB", mebibytes(max))))
    }
}

/// Where an answer sends us, if it does: from https to nothing less.
fn redirect(from: &Url, response: &Response) -> Result<Option<Url>, Problem> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok());
    let to = to.ok_or_else(|| rejected("the server redirects to nowhere"))?;
    if to.scheme() != "https" && (from.scheme() == "https" || to.scheme() != "http") {
        return Err(rejected("redirected from https to another scheme"));
    }
    Ok(Some(to))
}

/// Where a part begins, and how much all is. None if the server does not say it: what follows is unknown.
fn part(response: &Response) -> Option<(u64, u64)> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()?))
}

/// Without the address: there may be a signature in it.
fn unanswered(error: reqwest::Error) -> Problem {
    let error = error.without_url();
    let why = causes(&error);
    if error.is_builder() { rejected(why) } else { Problem::Unavailable(why) }
}

fn answered(status: StatusCode) -> Problem {
    let why = format!("the server answers {status}");
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Problem::Unavailable(why)
        }
        status if status.is_server_error() => Problem::Unavailable(why),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => rejected(format!("{why}: see spec.package.secretRef")),
        _ => rejected(why),
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
