//! From JSON to Python objects, as `json.loads` does it with the decoder of
//! trytond's JSON-RPC.
use std::fmt;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::imports::{JSON_DECODER, JSON_LOADS};

/// Decodes JSON.
///
/// Python decodes the JSON that `serde_json` refuses or reads in another way,
/// such as `NaN`, a lone surrogate or a large integer.
///
/// # Errors
///
/// Those of `json.loads` and of trytond's decoders.
pub(super) fn decode<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = Value { py }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) => decode_with_python(py, json),
    }
}

/// Decodes JSON with Python's own decoder.
pub(super) fn decode_with_python<'py>(
    py: Python<'py>,
    json: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let options = PyDict::new(py);
    options.set_item("object_hook", object_hook(py)?)?;
    JSON_LOADS.get(py)?.call((json,), Some(&options))
}

/// The function that decodes dictionaries that stand for dates and other types.
fn object_hook(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static DECODER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let decoder = DECODER.get_or_try_init(py, || {
        Ok::<_, PyErr>(JSON_DECODER.get(py)?.call0()?.unbind())
    })?;
    Ok(decoder.bind(py))
}

#[derive(Clone, Copy)]
struct Value<'py> {
    py: Python<'py>,
}

impl<'py> Value<'py> {
    /// A key of an object. The keys of most messages are interned.
    fn key(self, key: &str) -> Bound<'py, PyString> {
        let py = self.py;
        let known = match key {
            "message_id" => pyo3::intern!(py, "message_id"),
            "type" => pyo3::intern!(py, "type"),
            "title" => pyo3::intern!(py, "title"),
            "body" => pyo3::intern!(py, "body"),
            "priority" => pyo3::intern!(py, "priority"),
            _ => return PyString::new(py, key),
        };
        known.clone()
    }
}

impl<'de, 'py> DeserializeSeed<'de> for Value<'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'py> Visitor<'de> for Value<'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(self.py.None().into_bound(self.py))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        object(self.py, value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        object(self.py, value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        object(self.py, value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        // The number may have been an integer beyond 64 bits, or `-0`.
        if value.fract() == 0.0 && (value == 0.0 || value.abs() >= 2_f64.powi(63)) {
            return Err(E::custom("perhaps an integer"));
        }
        object(self.py, value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        object(self.py, value)
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut items: A,
    ) -> Result<Self::Value, A::Error> {
        let list = PyList::empty(self.py);
        while let Some(item) = items.next_element_seed(self)? {
            list.append(item).map_err(A::Error::custom)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut members: A,
    ) -> Result<Self::Value, A::Error> {
        let dict = PyDict::new(self.py);
        let mut has_class = false;
        while let Some(key) = members.next_key::<std::borrow::Cow<'de, str>>()? {
            has_class |= key == "__class__";
            let value = members.next_value_seed(self)?;
            dict.set_item(self.key(&key), value)
                .map_err(A::Error::custom)?;
        }
        if has_class {
            let hook = object_hook(self.py).map_err(A::Error::custom)?;
            return hook.call1((dict,)).map_err(A::Error::custom);
        }
        Ok(dict.into_any())
    }
}

fn object<'py, T, E>(py: Python<'py>, value: T) -> Result<Bound<'py, PyAny>, E>
where
    T: IntoPyObject<'py>,
    E: Error,
{
    value
        .into_bound_py_any(py)
        .map_err(|_| E::custom("no Python object"))
}
