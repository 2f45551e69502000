//! Dates and times in JSON, as trytond's own serializers write them.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDict, PyString, PyTuple, PyType};

use super::imports::JSON_ENCODER;

/// The attributes that are written.
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
    class: Py<PyAny>,
    name: &'static str,
    attributes: &'static [&'static str],
}

impl Serializer {
    /// The serializer that this function is, if it is one of them, for
    /// objects of just this class: a module may have replaced it.
    pub(super) fn of<'a>(
        function: &Bound<'a, PyAny>,
        class: &Bound<'a, PyType>,
    ) -> PyResult<Option<&'a Self>> {
        static ALL: PyOnceLock<Vec<Serializer>> = PyOnceLock::new();
        let py = function.py();
        let all = ALL.get_or_try_init(py, || Self::all(py))?;
        Ok(all
            .iter()
            .find(|known| known.function.is(function) && known.class.is(class)))
    }

    /// Those that are registered now, are trytond's, and write in the series
    /// that runs what is written here.
    fn all(py: Python<'_>) -> PyResult<Vec<Self>> {
        let encoder = JSON_ENCODER.get(py)?;
        let module = encoder.getattr("__module__")?;
        let globals = py.import(module.cast::<PyString>()?)?.dict();
        let functions = encoder.getattr("serializers")?;
        let options = [("separators", (",", ":"))].into_py_dict(py)?;
        let whole = encoder.call((), Some(&options))?;
        let mut all = Vec::new();
        for (name, attributes) in [
            ("datetime", &ATTRIBUTES[..]),
            ("date", &ATTRIBUTES[..3]),
            ("time", &ATTRIBUTES[3..]),
        ] {
            let class = py.import("datetime")?.getattr(name)?;
            let Some(function) = functions.cast::<PyDict>()?.get_item(&class)? else {
                continue;
            };
            let values: Vec<_> = (1..=attributes.len()).collect();
            let example = class.call1(PyTuple::new(py, values)?)?;
            let serializer = Self {
                function: function.clone().unbind(),
                class: class.unbind(),
                name,
                attributes,
            };
            let theirs = whole.call_method1("encode", (&example,))?;
            let mut ours = String::new();
            serializer.push(&mut ours, &example)?;
            let defined_in = function.getattr("__globals__");
            if theirs.eq(ours)? && defined_in.is_ok_and(|dict| dict.is(&globals)) {
                all.push(serializer);
            }
        }
        Ok(all)
    }

    /// Appends the JSON of what it makes of an object of its class.
    pub(super) fn push(
        &self,
        out: &mut String,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        // All attributes by one call.
        let text = object.call_method0(pyo3::intern!(object.py(), "isoformat"))?;
        let text = text.cast::<PyString>()?.to_str()?;
        let mut numbers = numbers(text);
        out.push_str("{\"__class__\":\"");
        out.push_str(self.name);
        out.push('"');
        for attribute in self.attributes {
            out.push_str(",\"");
            out.push_str(attribute);
            out.push_str("\":");
            out.push_str(numbers.next().unwrap_or("0"));
        }
        out.push('}');
        Ok(())
    }
}

/// The numbers of a date or a time in the format of ISO 8601, as JSON writes
/// them. Microseconds are left out where there are none, and what follows is
/// the time zone's, with a sign.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    // The dashes of a date come before.
    let is_zone = |(index, byte)| index > 7 && matches!(byte, b'+' | b'-');
    let zone = text.bytes().enumerate().position(is_zone);
    let text = &text[..zone.unwrap_or(text.len())];
    text.split(['-', 'T', ':', '.']).map(|digits| {
        let number = digits.trim_start_matches('0');
        if number.is_empty() { "0" } else { number }
    })
}
