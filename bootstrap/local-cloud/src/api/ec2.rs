//! The EC2 actions, version 2016-11-15: `DescribeTags`.

use crate::api::query::{ApiError, Params};
use crate::api::xml::Xml;
use crate::model::ids::request_id;
use crate::model::state::State;

/// EC2's version of the query protocol.
pub(crate) const VERSION: &str = "2016-11-15";

/// Answers an EC2 action.
pub(crate) fn perform(state: &State, action: &str, params: &Params) -> Result<String, ApiError> {
    match action {
        "DescribeTags" => describe_tags(state, params),
        _ => Err(ApiError::invalid_action(action)),
    }
}

const TAGS_IN_A_PAGE: usize = 2;

fn describe_tags(state: &State, params: &Params) -> Result<String, ApiError> {
    params.allow(&["Filter.N.Name", "Filter.N.Value.N", "NextToken"])?;
    let mut filters = Vec::new();
    for n in params.indices("Filter") {
        let name = params.require(&format!("Filter.{n}.Name"))?;
        if !["resource-id", "resource-type", "key", "value"].contains(&name) {
            let text = format!("The filter '{name}' is invalid");
            return Err(ApiError::bad("InvalidParameterValue", text));
        }
        filters.push((name, params.list(&format!("Filter.{n}.Value"))));
    }
    let mut found = Vec::new();
    for instance in state.instances.values() {
        for (key, value) in &instance.spec.tags {
            let field = |name: &str| match name {
                "resource-id" => instance.id.as_str(),
                "resource-type" => "instance",
                "key" => key.as_str(),
                _ => value.as_str(),
            };
            if filters.iter().all(|(name, any)| any.contains(&field(name))) {
                found.push((&instance.id, key, value));
            }
        }
    }
    // As EC2 may do whenever it likes, a page at a time; the token is where the next one begins.
    let begin = match params.get("NextToken") {
        None => 0,
        Some(token) => token.parse().map_err(|_| {
            ApiError::bad("InvalidPaginationToken", format!("The pagination token '{token}' is invalid"))
        })?,
    };
    let next = (begin + TAGS_IN_A_PAGE < found.len()).then(|| begin + TAGS_IN_A_PAGE);
    let page = found.into_iter().skip(begin).take(TAGS_IN_A_PAGE);
    Ok(Xml::document("DescribeTagsResponse", &format!("http://ec2.amazonaws.com/doc/{VERSION}/"), |xml| {
        xml.text("requestId", request_id());
        if let Some(next) = next {
            xml.text("nextToken", next.to_string());
        }
        xml.list("tagSet", "item", page, |xml, (id, key, value)| {
            xml.text("resourceId", id);
            xml.text("resourceType", "instance");
            xml.text("key", key);
            xml.text("value", value);
        });
    }))
}
