//! What a mongodump archive says of a collection beside its documents: options and indexes, as canonical Extended JSON.

use mongodb::bson::{Bson, Document};
use serde_json::{Value, json};

/// What makes a collection what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionMetadata {
    /// Options of `create`, such as `capped`, `validator`, `collation`, `viewOn`.
    pub options: Document,
    /// Specifications of `createIndexes`, with that of `_id`.
    pub indexes: Vec<Document>,
    /// The collection's UUID, hexadecimal, where it has one.
    pub uuid: Option<String>,
}

/// A value of a type that options and indexes do not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` has a type that cannot be written as metadata")]
pub struct MetadataError {
    /// Where.
    pub field: String,
}

impl CollectionMetadata {
    /// The text that goes into an archive.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn to_text(&self, collection: &str, kind: &str) -> Result<String, MetadataError> {
        let whole = Document::from_iter([
            ("options".to_owned(), Bson::Document(self.options.clone())),
            ("indexes".to_owned(), Bson::Array(self.indexes.iter().cloned().map(Bson::Document).collect())),
            ("uuid".to_owned(), Bson::String(self.uuid.clone().unwrap_or_default())),
            ("collectionName".to_owned(), Bson::String(collection.to_owned())),
            ("type".to_owned(), Bson::String(kind.to_owned())),
        ]);
        write("", &Bson::Document(whole))
    }

    /// Reads the text of an archive; an empty one says nothing.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self { options: Document::new(), indexes: Vec::new(), uuid: None });
        }
        let whole: Document = serde_json::from_str(text).map_err(|error| format!("its metadata cannot be read: {error}"))?;
        let options = match whole.get("options") {
            Some(Bson::Document(options)) => options.clone(),
            None | Some(Bson::Null) => Document::new(),
            Some(_) => return Err("its options are no document".to_owned()),
        };
        let mut indexes = Vec::new();
        match whole.get("indexes") {
            Some(Bson::Array(listed)) => {
                for index in listed {
                    let mut index = index.as_document().ok_or("an index is no document")?.clone();
                    // Old tools wrote the name space, which moves when the collection does.
                    index.remove("ns");
                    indexes.push(index);
                }
            }
            None | Some(Bson::Null) => (),
            Some(_) => return Err("its indexes are no list".to_owned()),
        }
        Ok(Self { options, indexes, uuid: whole.get_str("uuid").ok().map(str::to_owned) })
    }

    /// A text that is the same for the same options, in whatever order the server tells them.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn options_text(&self) -> Result<String, MetadataError> {
        sorted(&self.options)
    }

    /// A text for each index that is the same for the same index, in whatever order the server tells its fields.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn index_texts(&self) -> Result<Vec<String>, MetadataError> {
        self.indexes.iter().map(sorted).collect()
    }
}

/// The outer fields by name; inner ones keep their order, which has a meaning in keys and filters.
fn sorted(source: &Document) -> Result<String, MetadataError> {
    let mut fields: Vec<(&String, &Bson)> = source.iter().filter(|(name, _)| *name != "ns").collect();
    fields.sort_by_key(|(name, _)| *name);
    let mut text = String::new();
    for (name, value) in fields {
        // Servers tell numbers of options now as this type, now as that.
        let value = match value {
            Bson::Int32(number) => Bson::Int64(i64::from(*number)),
            Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Bson::Int64(*number as i64),
            other => other.clone(),
        };
        text.push_str(&format!("{name}={}\n", write(name, &value)?));
    }
    Ok(text)
}

/// `serde_json`'s own maps sort their keys; the order of these has a meaning, so the text is put together here.
fn write(field: &str, value: &Bson) -> Result<String, MetadataError> {
    let text = |text: &str| Value::String(text.to_owned()).to_string();
    Ok(match value {
        Bson::Document(inner) => {
            let fields: Vec<String> =
                inner.iter().map(|(name, value)| Ok(format!("{}:{}", text(name), write(name, value)?))).collect::<Result<_, _>>()?;
            format!("{{{}}}", fields.join(","))
        }
        Bson::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| write(field, value)).collect::<Result<_, _>>()?;
            format!("[{}]", values.join(","))
        }
        Bson::String(value) => text(value),
        Bson::Boolean(value) => value.to_string(),
        Bson::Null => "null".to_owned(),
        Bson::Int32(value) => json!({ "$numberInt": value.to_string() }).to_string(),
        Bson::Int64(value) => json!({ "$numberLong": value.to_string() }).to_string(),
        Bson::Double(value) => json!({ "$numberDouble": double(*value) }).to_string(),
        Bson::Decimal128(value) => json!({ "$numberDecimal": value.to_string() }).to_string(),
        Bson::ObjectId(value) => json!({ "$oid": value.to_hex() }).to_string(),
        Bson::DateTime(value) => json!({ "$date": { "$numberLong": value.timestamp_millis().to_string() } }).to_string(),
        Bson::Timestamp(value) => json!({ "$timestamp": { "t": value.time, "i": value.increment } }).to_string(),
        Bson::RegularExpression(value) => {
            json!({ "$regularExpression": { "pattern": value.pattern.to_string(), "options": value.options.to_string() } }).to_string()
        }
        Bson::MinKey => json!({ "$minKey": 1 }).to_string(),
        Bson::MaxKey => json!({ "$maxKey": 1 }).to_string(),
        _ => return Err(MetadataError { field: field.to_owned() }),
    })
}

fn double(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        format!("{value:?}")
    }
}
