//! Plans compared with files: tests/golden/plan/NAME.json is merged over base.json, and the plan (or the refusal) must be
//! NAME.plan. `UPDATE_GOLDEN=1` writes them.

use super::{PlanOptions, plan};
use crate::runtime::lifecycle::parse_spec;
use serde_json::Value;
use std::path::Path;

/// RFC 7396: null removes, objects merge, all else replaces.
fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = Value::Object(serde_json::Map::new());
    }
    let Value::Object(base) = base else { return };
    for (key, change) in changes {
        if change.is_null() {
            base.remove(key);
        } else {
            merge(base.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

fn describe(spec: &Value) -> String {
    let options = || PlanOptions { id: "web".into(), bundle: "/bundle".into(), ..PlanOptions::default() };
    match parse_spec(spec.to_string().as_bytes()).and_then(|spec| plan(&spec, options())) {
        Ok(plan) => plan.to_string(),
        Err(error) => format!("refused: {error:#}\n"),
    }
}

#[test]
fn plans_are_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan");
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let base = read(&directory.join("base.json"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let mut spec = base.clone();
        if path.file_stem().is_some_and(|name| name != "base") {
            merge(&mut spec, &read(&path));
        }
        let text = describe(&spec);
        let golden = path.with_extension("plan");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 30, "only {count} goldens");
}

/// Every field of a sound spec replaced by values of every other kind: a refusal or a plan, never a panic.
#[test]
fn no_value_in_any_place_is_a_panic() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan");
    let base: Value = serde_json::from_slice(&std::fs::read(directory.join("base.json")).unwrap()).unwrap();
    let strange = [
        Value::Null,
        Value::from(-1),
        Value::from(u64::MAX),
        Value::from(""),
        Value::from("\0/../.."),
        Value::from("é".repeat(300)),
        Value::Array(vec![]),
        serde_json::json!({}),
        Value::from(true),
    ];
    let mut pointers = Vec::new();
    collect(&base, String::new(), &mut pointers);
    for pointer in &pointers {
        for value in &strange {
            let mut spec = base.clone();
            if let Some(place) = spec.pointer_mut(pointer) {
                *place = value.clone();
            }
            let _ = describe(&spec);
        }
    }
    assert!(pointers.len() > 100);
}

fn collect(value: &Value, path: String, pointers: &mut Vec<String>) {
    pointers.push(path.clone());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            collect(value, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), pointers);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| collect(value, format!("{path}/{index}"), pointers));
        }
        _ => {}
    }
}
