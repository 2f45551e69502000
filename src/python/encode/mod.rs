//! From Python objects to JSON, as `json.dumps` writes it with the encoder of
//! trytond's JSON-RPC and without spaces.
mod dates;

use std::fmt::Write;

use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use self::dates::Serializer;
use super::imports::{ESCAPE_STRING, JSON_ENCODER};
use crate::json;

/// The limit of nested containers. It is about that of Python's own encoder,
/// and not above that of its decoder.
const DEPTH_MAX: usize = 900;

/// Appends the JSON of `object`, in pure ASCII.
///
/// # Errors
///
/// `TypeError` for an object or a dictionary key of a type that can't be
/// encoded; `ValueError` for a container that contains itself; `RecursionError`
/// for one that is nested too deeply.
pub(super) fn encode(out: &mut String, object: &Bound<'_, PyAny>) -> PyResult<()> {
    Encoder {
        out,
        containers: Vec::new(),
    }
    .value(object)
}

struct Encoder<'a> {
    out: &'a mut String,
    /// The addresses of the containers around the value.
    containers: Vec<usize>,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        // The order is that of Python's own encoder, because a bool is an int
        // as well.
        if let Ok(text) = value.cast::<PyString>() {
            self.string(text)
        } else if value.is_none() {
            self.out.push_str("null");
            Ok(())
        } else if let Ok(truth) = value.cast::<PyBool>() {
            self.out
                .push_str(if truth.is_true() { "true" } else { "false" });
            Ok(())
        } else if let Ok(number) = value.cast::<PyInt>() {
            self.int(number)
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.float(number)
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.nested(value, |encoder| encoder.dict(dict))
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.nested(value, |encoder| encoder.items(list.iter()))
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.nested(value, |encoder| encoder.items(tuple.iter()))
        } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>()
        {
            // A subclass may override `__iter__`.
            let items: Vec<_> = value.try_iter()?.collect::<PyResult<_>>()?;
            self.nested(value, |encoder| encoder.items(items.into_iter()))
        } else {
            self.other(value)
        }
    }

    fn string(&mut self, text: &Bound<'_, PyString>) -> PyResult<()> {
        if let Ok(text) = text.to_str() {
            json::push_string(self.out, text);
        } else {
            // The text has a lone surrogate, which a Rust string can't contain.
            let escaped = ESCAPE_STRING.get(text.py())?.call1((text,))?;
            self.out.push_str(escaped.cast::<PyString>()?.to_str()?);
        }
        Ok(())
    }

    fn int(&mut self, number: &Bound<'_, PyInt>) -> PyResult<()> {
        if let Ok(number) = number.extract::<i64>() {
            write!(self.out, "{number}").expect("text takes all");
            return Ok(());
        }
        // Written as an int, because a subclass may override `__repr__`.
        self.repr_as::<PyInt>(number)
    }

    fn float(&mut self, number: &Bound<'_, PyFloat>) -> PyResult<()> {
        let value = number.value();
        if value.is_finite() {
            return self.repr_as::<PyFloat>(number);
        }
        self.out.push_str(if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
        Ok(())
    }

    fn repr_as<T: PyTypeInfo>(&mut self, number: &Bound<'_, PyAny>) -> PyResult<()> {
        let class: Bound<'_, PyType> = number.py().get_type::<T>();
        let repr =
            class.call_method1(pyo3::intern!(number.py(), "__repr__"), (number,))?;
        self.out.push_str(repr.cast::<PyString>()?.to_str()?);
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>) -> PyResult<()> {
        self.out.push('{');
        // Iterates over a copy, because encoding a value may run Python code
        // that changes the dictionary.
        for (index, item) in items_of(dict)?.into_iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            let (key, value) =
                item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()
                    .map_err(|_| PyValueError::new_err("items must return 2-tuples"))?;
            self.key(&key)?;
            self.out.push(':');
            self.value(&value)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn key(&mut self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(text) = key.cast::<PyString>() {
            return self.string(text);
        }
        if !(key.is_none()
            || key.is_instance_of::<PyInt>()
            || key.is_instance_of::<PyFloat>())
        {
            return Err(PyTypeError::new_err(format!(
                "keys must be str, int, float, bool or None, not {}",
                key.get_type().name()?
            )));
        }
        self.out.push('"');
        self.value(key)?;
        self.out.push('"');
        Ok(())
    }

    fn items<'py>(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        self.out.push('[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.value(&item)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// Appends an object of any other type as trytond's encoder writes it.
    fn other(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        let encoder = JSON_ENCODER.get(py)?;
        // The encoder's method `default` looks there first.
        let serializers = encoder.getattr(pyo3::intern!(py, "serializers"))?;
        let other = match serializers.cast::<PyDict>()?.get_item(value.get_type())? {
            Some(function) => {
                if let Some(serializer) = Serializer::of(&function)? {
                    return serializer.push(self.out, value);
                }
                function.call1((value,))?
            }
            None => encoder
                .call0()?
                .call_method1(pyo3::intern!(py, "default"), (value,))?,
        };
        self.nested(value, |encoder| encoder.value(&other))
    }

    fn nested(
        &mut self,
        container: &Bound<'_, PyAny>,
        encode: impl FnOnce(&mut Self) -> PyResult<()>,
    ) -> PyResult<()> {
        let address = container.as_ptr() as usize;
        if self.containers.contains(&address) {
            return Err(PyValueError::new_err("Circular reference detected"));
        }
        if self.containers.len() == DEPTH_MAX {
            return Err(PyRecursionError::new_err(format!(
                "more than {DEPTH_MAX} containers are nested"
            )));
        }
        self.containers.push(address);
        encode(self)?;
        self.containers.pop();
        Ok(())
    }
}

/// The items of `dict`. A subclass that is not empty may override `items`.
fn items_of<'py>(dict: &Bound<'py, PyDict>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if dict.is_exact_instance_of::<PyDict>() || dict.is_empty() {
        return Ok(dict.items().iter().collect());
    }
    let items = dict.call_method0(pyo3::intern!(dict.py(), "items"))?;
    items.try_iter()?.collect()
}
