//! Dates and times in JSON, as trytond's own serializers write them.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::encode;
use crate::python::imports::JSON_ENCODER;

/// The attributes that a serializer may write.
const ATTRIBUTES: [&str; 7] = [
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "microsecond",
];

/// A serializer of trytond whose work can be done here.
pub(super) struct Serializer {
    function: Py<PyAny>,
    class: &'static str,
    attributes: Vec<(&'static str, Py<PyString>)>,
}

impl Serializer {
    /// The serializer of this function; none if a module has replaced it by
    /// another function.
    pub(super) fn of<'a>(function: &Bound<'a, PyAny>) -> PyResult<Option<&'a Self>> {
        static ALL: PyOnceLock<Vec<Serializer>> = PyOnceLock::new();
        let py = function.py();
        let all = ALL.get_or_try_init(py, || Self::all(py))?;
        Ok(all.iter().find(|known| known.function.is(function)))
    }

    /// The registered serializers that are trytond's own and write the same as
    /// this code in the running series.
    fn all(py: Python<'_>) -> PyResult<Vec<Self>> {
        let encoder = JSON_ENCODER.get(py)?;
        let module = encoder.getattr("__module__")?;
        let globals = py.import(module.cast::<PyString>()?)?.dict();
        let functions = encoder.getattr("serializers")?;
        let mut all = Vec::new();
        for (class, attributes) in [
            ("datetime", &ATTRIBUTES[..]),
            ("date", &ATTRIBUTES[..3]),
            ("time", &ATTRIBUTES[3..]),
        ] {
            let type_ = py.import("datetime")?.getattr(class)?;
            let Some(function) = functions.cast::<PyDict>()?.get_item(&type_)? else {
                continue;
            };
            let values: Vec<_> = (1..=attributes.len()).collect();
            let example = type_.call1(PyTuple::new(py, values)?)?;
            let serializer = Self {
                function: function.clone().unbind(),
                class,
                attributes: attributes
                    .iter()
                    .map(|name| (*name, PyString::intern(py, name).unbind()))
                    .collect(),
            };
            let (mut theirs, mut ours) = (String::new(), String::new());
            encode(&mut theirs, &function.call1((&example,))?)?;
            serializer.push(&mut ours, &example)?;
            let defined_in = function.getattr("__globals__");
            if theirs == ours && defined_in.is_ok_and(|dict| dict.is(&globals)) {
                all.push(serializer);
            }
        }
        Ok(all)
    }

    /// Appends the JSON of the serialized object.
    pub(super) fn push(
        &self,
        out: &mut String,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        out.push_str("{\"__class__\":\"");
        out.push_str(self.class);
        out.push('"');
        for (name, attribute) in &self.attributes {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            encode(out, &object.getattr(attribute)?)?;
        }
        out.push('}');
        Ok(())
    }
}
