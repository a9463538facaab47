//! The name of a field as a value of its own: text, or a number where the type wants one.
//!
//! Which names a struct knows is decided one level up.

use serde::de::{self, Visitor};

use super::Stop;

/// The name of an entry; a map may want it as a number (`portLevelMtls`).
pub(super) struct Key<'t> {
    text: &'t str,
}

impl<'t> Key<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text }
    }
}

macro_rules! numeric_keys {
    ($($method:ident $visit:ident $type:ty,)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            match self.text.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(de::Error::custom(format_args!("expected a number as the name of this field, found {:?}", self.text))),
            }
        })+
    };
}

impl<'de> de::Deserializer<'de> for Key<'_> {
    type Error = Stop;

    numeric_keys! {
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_str(self.text)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i128 u8 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
