//! Watches: answers that do not end, and what is done to them.
use std::{future::pending, io, time::Duration};

use futures::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use tokio::{sync::watch, time::Instant};

/// The switches of all watches of one proxy.
#[derive(Debug, Default)]
pub struct Watches(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Counts cuts: a watch ends when the count changes.
    cuts: u64,
    silent_until: Option<Instant>,
}

impl State {
    fn is_silent(self) -> bool {
        self.silent_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Watches {
    /// Resets all that are open.
    pub fn cut(&self) {
        self.0.send_modify(|state| state.cuts += 1);
    }

    /// Lets none tell anything for so long. One that has swallowed something stays silent: a watch has no gaps.
    pub fn silence(&self, time: Duration) {
        self.0.send_modify(|state| state.silent_until = Some(Instant::now() + time));
    }

    /// The frames of `body`, subject to the switches; an error resets the connection.
    pub fn relay<B>(&self, body: B) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + use<B>
    where
        B: Body<Data = Bytes> + Unpin + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let switches = self.0.subscribe();
        let cuts = switches.borrow().cuts;
        let relay = Relay { body, switches, cuts, lost: false };
        stream::unfold(Some(relay), |relay| async move {
            let mut relay = relay?;
            let frame = relay.next().await?;
            let rest = frame.is_ok().then_some(relay);
            Some((frame, rest))
        })
    }
}

struct Relay<B> {
    body: B,
    switches: watch::Receiver<State>,
    cuts: u64,
    lost: bool,
}

impl<B> Relay<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let mut switches = self.switches.clone();
        let cuts = self.cuts;
        let cut = async {
            // The sender is gone only with the proxy.
            if switches.wait_for(|state| state.cuts != cuts).await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = cut => Some(Err(io::ErrorKind::ConnectionReset.into())),
            frame = self.frame() => frame,
        }
    }

    async fn frame(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        loop {
            let frame = self.body.frame().await;
            self.lost |= self.switches.borrow().is_silent();
            match frame {
                frame if !self.lost => return frame.map(|frame| frame.map_err(io::Error::other)),
                Some(Ok(_)) => {}
                // Its end is not heard of either.
                Some(Err(_)) | None => pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;

    const MOMENT: Duration = Duration::from_secs(1);

    type Body = StreamBody<stream::BoxStream<'static, io::Result<Frame<Bytes>>>>;

    fn server() -> (mpsc::Sender<&'static str>, Body) {
        let (tell, told) = mpsc::channel(4);
        let frames = stream::unfold(told, |mut told| async move {
            let text: &str = told.recv().await?;
            Some((Ok(Frame::data(Bytes::from_static(text.as_bytes()))), told))
        });
        (tell, StreamBody::new(frames.boxed()))
    }

    async fn next(client: &mut (impl Stream<Item = io::Result<Frame<Bytes>>> + Unpin)) -> Option<io::Result<Bytes>> {
        let frame = tokio::time::timeout(MOMENT, client.next()).await.expect("silence")?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_silence_is_lost_and_so_is_what_follows() {
        let watches = Watches::default();
        let (server, body) = server();
        let mut client = watches.relay(body).boxed();
        server.send("1").await.unwrap();
        assert_eq!(next(&mut client).await.unwrap().unwrap(), "1");
        watches.silence(MOMENT * 10);
        server.send("2").await.unwrap();
        assert!(tokio::time::timeout(MOMENT * 20, client.next()).await.is_err());
        server.send("3").await.unwrap();
        assert!(tokio::time::timeout(MOMENT, client.next()).await.is_err(), "a watch has no gaps");
        watches.cut();
        assert!(next(&mut client).await.unwrap().is_err());
        assert!(next(&mut client).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_lost_nothing_goes_on_and_ends_with_its_server() {
        let watches = Watches::default();
        watches.cut();
        let (server, body) = server();
        let mut client = watches.relay(body).boxed();
        watches.silence(MOMENT);
        tokio::time::sleep(MOMENT * 2).await;
        server.send("1").await.unwrap();
        assert_eq!(next(&mut client).await.unwrap().unwrap(), "1");
        drop(server);
        assert!(next(&mut client).await.is_none());
    }
}
