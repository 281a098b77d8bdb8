//! The HTTP client: rustls with ring, the machine's own trust store, the usual proxy variables.

use std::net::{IpAddr, Ipv6Addr};

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use instance_contract::Failure;

use crate::answer;

/// The variables that name a proxy, the same as for curl and other AWS tools.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The metadata service's IPv6 address. The other is link-local.
const METADATA: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));

/// Whether the machine trusts any certificate authority.
pub fn has_certificates() -> bool {
    !rustls_native_certs::load_native_certs().certs.is_empty()
}

/// The client that all SDK clients of a program share. `trusts` says whether the machine has a trust store
/// ([`has_certificates`]); without one only plain HTTP works.
///
/// Requests use the proxy in `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY`, except for hosts in `NO_PROXY`, this machine and
/// the metadata service. The SDK gets an answer only once it is complete; an incomplete one is an error
/// ([`crate::NoAnswer`]). Errors contain the address ([`Failure`]).
pub fn http_client(trusts: bool) -> SharedHttpClient {
    // In debug builds the client asserts that native roots exist.
    let trusted = if trusts { TrustStore::default() } else { TrustStore::empty() };
    // Fails only for unreadable custom certificates; there are none.
    let tls = TlsContext::builder().with_trust_store(trusted).build().unwrap_or_default();
    let rustls = Provider::Rustls(CryptoMode::Ring);
    let direct = Builder::new().tls_provider(rustls.clone()).tls_context(tls.clone()).build_https();
    let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let proxied = PROXIES.iter().any(named).then(|| {
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder();
            connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            connector.set_connector_settings(settings.cloned());
            let connector = connector.proxy_config(ProxyConfig::from_env());
            connector.tls_provider(rustls.clone()).tls_context(tls.clone()).build()
        })
    });
    SharedHttpClient::new(ProxyingClient { direct, proxied })
}

#[derive(Debug)]
struct ProxyingClient {
    direct: SharedHttpClient,
    proxied: Option<SharedHttpClient>,
}

impl HttpClient for ProxyingClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = |client: &SharedHttpClient| client.http_connector(settings, components);
        SharedHttpConnector::new(CompleteAnswers {
            direct: connector(&self.direct),
            proxied: self.proxied.as_ref().map(connector),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.direct.validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.direct.connector_metadata()
    }
}

#[derive(Debug)]
struct CompleteAnswers {
    direct: SharedHttpConnector,
    proxied: Option<SharedHttpConnector>,
}

impl HttpConnector for CompleteAnswers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_metadata =
            request.headers().iter().any(|(name, _)| name.starts_with("x-aws-ec2-metadata-token"));
        let connector = match &self.proxied {
            Some(proxied) if !is_metadata && !is_local(request.uri()) => proxied,
            _ => &self.direct,
        };
        let url = request.uri().to_owned();
        let answered = connector.call(request);
        HttpConnectorFuture::new(async move {
            let answer = async { answer::whole(answered.await?, is_metadata).await };
            answer.await.map_err(|error| explained(&url, error))
        })
    }
}

/// The same failure, with the address and what to do.
fn explained(url: &str, error: ConnectorError) -> ConnectorError {
    let failure = Failure::of(url, &error).into();
    match error.as_other() {
        _ if error.is_timeout() => ConnectorError::timeout(failure),
        _ if error.is_io() => ConnectorError::io(failure),
        _ if error.is_user() => ConnectorError::user(failure),
        kind => ConnectorError::other(failure, kind),
    }
}

/// Whether a host is this machine, or reachable only from this machine.
fn is_local(uri: &str) -> bool {
    let authority = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(address) => address.is_loopback() || address == METADATA,
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_loopback_are_local_and_services_are_not() {
        for local in [
            "http://127.0.0.1:5000/",
            "http://localhost/x",
            "http://169.254.169.254/latest/api/token",
            "http://169.254.170.2/v2/credentials",
            "http://[fd00:ec2::254]/latest",
            "http://[::1]:80/",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in
            ["https://ec2.us-east-1.amazonaws.com/", "http://10.0.0.1/", "https://localhost.example.com"]
        {
            assert!(!is_local(remote), "{remote}");
        }
    }
}
