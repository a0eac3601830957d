//! A create that listens to the API server's warnings: kube's own calls pass them over.
use kube::{
    Client,
    api::PostParams,
    client::Body,
    core::{Request, Status},
};

/// Creates an object; returns what the API server warns of, such as `unknown field "spec.containers[0].imagee"`.
///
/// # Errors
/// The API server's answer, or that there is none.
pub async fn create(
    client: &Client,
    request: &Request,
    params: &PostParams,
    object: Vec<u8>,
) -> Result<Vec<String>, kube::Error> {
    let request = request.create(params, object).map_err(kube::Error::BuildRequest)?;
    let (answer, body) = client.send(request.map(Body::from)).await?.into_parts();
    // Also where it says nothing new: the API server logs a call as aborted whose answer is not read to its end.
    let body = body.collect_bytes().await?;
    let code = answer.status;
    if code.is_success() {
        let headers = answer.headers.get_all("warning").iter();
        return Ok(headers.filter_map(|header| text_of(header.to_str().ok()?)).collect());
    }
    let unread = |_| Status::failure(&String::from_utf8_lossy(&body), "").with_code(code.as_u16());
    Err(kube::Error::Api(Box::new(serde_json::from_slice(&body).unwrap_or_else(unread))))
}

/// Of a header `299 - "unknown field \"spec.a\""`.
fn text_of(header: &str) -> Option<String> {
    let text = header.split_once('"')?.1.strip_suffix('"')?;
    Some(text.replace("\\\"", "\""))
}

#[cfg(all(test, feature = "operator"))]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::scripted::{self, Answer};

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_to_its_end() {
        let (end, body) = mpsc::unbounded_channel();
        let body = Mutex::new(Some(body));
        let client = scripted::client(move |_| Answer::Watch(body.lock().unwrap().take().unwrap()));
        let (pods, params) = (Request::new("/api/v1/namespaces/shop/pods"), PostParams::default());
        let mut call = Box::pin(create(&client, &pods, &params, b"{}".into()));
        assert!(timeout(Duration::from_secs(1), &mut call).await.is_err(), "there is more to come");
        drop(end);
        assert!(call.await.unwrap().is_empty());
    }

    /// What is misspelt is named, and refuses nothing.
    #[tokio::test]
    async fn what_the_api_server_warns_of_is_told() {
        let warning = r#"299 - "unknown field \"spec.containers[0].imagee\"""#;
        let client = scripted::client(|call| Answer::Warned(warning.into(), call.body));
        let (pods, params) = (Request::new("/api/v1/namespaces/shop/pods"), PostParams::default());
        let told = create(&client, &pods, &params, b"{}".into()).await.unwrap();
        assert_eq!(told, [r#"unknown field "spec.containers[0].imagee""#]);
        let client = scripted::client(|_| Answer::failure(422, "Invalid", "no"));
        let refused = create(&client, &pods, &params, b"{}".into()).await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if (status.code, &*status.message) == (422, "no")));
    }
}
