//! moto behind the front.

use std::time::Duration;

use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};

use super::answer::{Answer, AwsError};
use super::request::Request;
use super::xml::Element;

/// moto answers in milliseconds; on a machine that is busy compiling, in seconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Upstream {
    endpoint: String,
    client: reqwest::Client,
}

impl Upstream {
    pub(super) fn new(endpoint: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { endpoint: endpoint.to_owned(), client }
    }

    /// Asks moto, with the request as it is: signed for the front's own address, which moto takes
    /// from the Host header.
    pub(super) async fn send(&self, request: &Request) -> Answer {
        self.try_send(request).await.expect("moto answers")
    }

    async fn try_send(&self, request: &Request) -> reqwest::Result<Answer> {
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = request.headers.clone();
        for own in [CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING] {
            headers.remove(own);
        }
        let asked = self
            .client
            .request(request.method.clone(), format!("{}{path}", self.endpoint))
            .headers(headers)
            .body(request.body.clone())
            .send();
        let asked = asked.await?;
        let (status, mut headers) = (asked.status().as_u16(), asked.headers().clone());
        headers.remove(CONNECTION);
        Ok(Answer { status, headers, body: asked.bytes().await? })
    }

    /// As [`Upstream::ask`]; `None`: the connection ended without an answer.
    pub(super) async fn try_ask(
        &self,
        service: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Option<Answer> {
        self.try_send(&Request::query(service, action, parameters)).await.ok()
    }

    /// Asks moto something of its own query services, as the account's owner.
    pub(super) async fn ask(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> Answer {
        self.send(&Request::query(service, action, parameters)).await
    }

    /// As [`Upstream::ask`], where moto has to have an answer.
    pub(super) async fn look(
        &self,
        service: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Element, AwsError> {
        let answer = self.ask(service, action, parameters).await;
        if answer.ok() {
            return Ok(answer.xml());
        }
        let message = answer.xml().find("Message").map(|message| message.text.clone());
        Err(AwsError::new(answer.status, &answer.code(), message.unwrap_or_default()))
    }

    /// A call of moto's own, which is none of AWS's.
    pub(super) async fn control(&self, path: &str, body: &'static str) {
        let url = format!("{}/moto-api/{path}", self.endpoint);
        // As a form, moto would see an empty body.
        let sent = self.client.post(url).header("Content-Type", "text/plain").body(body).send().await;
        assert!(sent.expect("moto answers").status().is_success(), "{path}");
    }
}
