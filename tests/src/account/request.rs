//! What a request to AWS asks for, in any of the protocols that AWS's services speak.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Uri};
use serde_json::Value;

use super::calls::is_read;

/// A call: who asks which service to do what.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// As in the scope of the credentials: `ec2`, `elasticloadbalancing`, `iam`, `s3`, `ssm`, `sts`, ...
    pub(super) service: String,
    /// `RunInstances`, `CreateBucket`, ...
    pub(super) action: String,
    /// As in the scope of the credentials.
    pub(super) region: String,
    /// The form's fields, the query's for S3 together with `Bucket` and `Key`, or the JSON's own.
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether the front wrote it, or wrote it anew: the signature no longer fits.
    pub(super) own: bool,
}

impl Request {
    /// Reads it; `None` where it is not signed, which nothing of AWS's is.
    pub(super) fn read(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Option<Self> {
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let scope = match header {
            Some(header) => header.split_once("Credential=")?.1.split([',', ' ']).next()?.to_owned(),
            None => query.get("X-Amz-Credential")?.clone(),
        };
        // The access key, the date, the region, the service, aws4_request.
        let mut scope = scope.rsplit('/').skip(1);
        let (service, region) = (scope.next()?.to_owned(), scope.next()?.to_owned());
        let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let (action, parameters) = if service == "s3" {
            s3(&method, &uri, &headers, query)
        } else if let Some(target) = target {
            let action = target.rsplit('.').next()?.to_owned();
            let Value::Object(given) = serde_json::from_slice(&body).ok()? else {
                return None;
            };
            let plain = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (action, given.into_iter().map(|(key, value)| (key, plain(value))).collect())
        } else {
            let given: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
            (given.get("Action")?.clone(), given)
        };
        Some(Self { service, action, region, parameters, method, uri, headers, body, own: false })
    }

    /// A call of one of the query services, as the account's owner makes it.
    pub(super) fn query(service: &str, action: &str, parameters: &[(&str, &str)]) -> Self {
        let version = match service {
            "ec2" => "2016-11-15",
            "elasticloadbalancing" => "2015-12-01",
            "iam" => "2010-05-08",
            "autoscaling" => "2011-01-01",
            _ => "2011-06-15",
        };
        let given = [("Action", action), ("Version", version)];
        let parameters = given.iter().chain(parameters);
        let parameters = parameters.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().expect("a value"));
        let mut request = Self {
            service: service.to_owned(),
            action: action.to_owned(),
            region: super::REGION.to_owned(),
            parameters,
            method: Method::POST,
            uri: Uri::from_static("/"),
            headers,
            body: Bytes::new(),
            own: true,
        };
        request.rewritten();
        request
    }

    /// Whether it only looks.
    pub(super) fn is_read(&self) -> bool {
        is_read(&self.action)
    }

    /// A parameter; empty if it is not given.
    pub(super) fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// The values of a list, in order: `prefix.1`, `prefix.2`, ...
    pub(super) fn list(&self, prefix: &str) -> Vec<&str> {
        let numbers = 1..;
        numbers.map_while(|n| self.parameters.get(&format!("{prefix}.{n}"))).map(String::as_str).collect()
    }

    /// The filters of an EC2 call: each name with its values.
    pub(super) fn filters(&self) -> Vec<(&str, Vec<&str>)> {
        let numbers = 1..;
        let filter = |n: u32| {
            let name = self.parameters.get(&format!("Filter.{n}.Name"))?;
            Some((name.as_str(), self.list(&format!("Filter.{n}.Value"))))
        };
        numbers.map_while(filter).collect()
    }

    /// The tags that EC2 shall give to new resources of this type.
    pub(super) fn tag_specification(&self, resource: &str) -> Vec<(String, String)> {
        let prefixes = (1..).map(|n| format!("TagSpecification.{n}"));
        let prefixes =
            prefixes.take_while(|prefix| self.parameters.contains_key(&format!("{prefix}.ResourceType")));
        let of_type = prefixes.filter(|prefix| self.get(&format!("{prefix}.ResourceType")) == resource);
        of_type.flat_map(|prefix| self.pairs(&format!("{prefix}.Tag"))).collect()
    }

    /// The pairs of a list of tags: `prefix.1.Key` and `prefix.1.Value`, ...
    pub(super) fn pairs(&self, prefix: &str) -> Vec<(String, String)> {
        let pair = |n: u32| {
            let key = self.parameters.get(&format!("{prefix}.{n}.Key"))?;
            Some((key.clone(), self.get(&format!("{prefix}.{n}.Value")).to_owned()))
        };
        (1..).map_while(pair).collect()
    }

    /// Replaces a form's filters.
    pub(super) fn set_filters(&mut self, filters: &[(String, Vec<String>)]) {
        self.parameters.retain(|key, _| !key.starts_with("Filter."));
        for ((name, values), n) in filters.iter().zip(1..) {
            self.parameters.insert(format!("Filter.{n}.Name"), name.clone());
            for (value, v) in values.iter().zip(1..) {
                self.parameters.insert(format!("Filter.{n}.Value.{v}"), value.clone());
            }
        }
    }

    /// Makes the form, or the query of S3, what the parameters say now; the account's owner asks.
    pub(super) fn rewritten(&mut self) {
        self.own = true;
        let mut written = form_urlencoded::Serializer::new(String::new());
        if self.service == "s3" {
            let query = self.parameters.iter().filter(|(key, _)| !["Bucket", "Key"].contains(&key.as_str()));
            let written = written.extend_pairs(query).finish();
            self.uri = format!("{}?{written}", self.uri.path()).parse().expect("a URI");
        } else {
            self.body = written.extend_pairs(&self.parameters).finish().into();
        }
        let (service, region) = (&self.service, &self.region);
        let owner = format!(
            "AWS4-HMAC-SHA256 Credential=testing/20200101/{region}/{service}/aws4_request, \
             SignedHeaders=host, Signature=none"
        );
        self.headers.insert(AUTHORIZATION, owner.parse().expect("a value"));
    }
}

/// The action of an S3 call, and its parameters.
fn s3(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    mut query: BTreeMap<String, String>,
) -> (String, BTreeMap<String, String>) {
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let has = |name: &str| query.contains_key(name);
    let verb = match method.as_str() {
        "PUT" => "Put",
        "DELETE" => "Delete",
        _ => "Get",
    };
    let subresources = [
        ("tagging", "Tagging"),
        ("versioning", "Versioning"),
        ("encryption", "Encryption"),
        ("policy", "Policy"),
        ("lifecycle", "Lifecycle"),
        ("ownershipControls", "OwnershipControls"),
        ("location", "Location"),
        ("acl", "Acl"),
    ];
    let subresource = subresources.into_iter().find(|(name, _)| has(name));
    let action = match (bucket, key, subresource) {
        ("", ..) => "ListBuckets".to_owned(),
        (_, "", _) if has("publicAccessBlock") => format!("{verb}PublicAccessBlock"),
        (_, "", Some((_, name))) => format!("{verb}Bucket{name}"),
        (_, _, Some((_, name))) => format!("{verb}Object{name}"),
        (_, "", None) => match method.as_str() {
            "PUT" => "CreateBucket",
            "DELETE" => "DeleteBucket",
            "HEAD" => "HeadBucket",
            "POST" => "DeleteObjects",
            _ if has("versions") => "ListObjectVersions",
            _ if has("uploads") => "ListMultipartUploads",
            _ => "ListObjectsV2",
        }
        .to_owned(),
        (..) => match method.as_str() {
            "PUT" if headers.contains_key("x-amz-copy-source") => "CopyObject",
            "PUT" => "PutObject",
            "DELETE" => "DeleteObject",
            "HEAD" => "HeadObject",
            "POST" => "CreateMultipartUpload",
            _ => "GetObject",
        }
        .to_owned(),
    };
    query.insert("Bucket".to_owned(), bucket.to_owned());
    query.insert("Key".to_owned(), key.to_owned());
    (action, query)
}
