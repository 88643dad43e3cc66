//! CBOR for shared values that minicbor has no impls for, as modules for `#[cbor(with = "...")]`.

use std::sync::Arc;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode, encode::Write};

/// An `Arc<str>` as a text string.
pub(crate) mod text {
    use super::*;

    pub(crate) fn encode<C, W: Write>(
        text: &Arc<str>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(text)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Arc<str>, decode::Error> {
        d.str().map(Arc::from)
    }
}

/// An `Option<Arc<str>>` as a text string or null.
pub(crate) mod maybe_text {
    use super::*;

    pub(crate) fn encode<C, W: Write>(
        text: &Option<Arc<str>>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match text {
            Some(text) => e.str(text)?.ok(),
            None => e.null()?.ok(),
        }
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, c: &mut C) -> Result<Option<Arc<str>>, decode::Error> {
        Ok(Option::<&str>::decode(d, c)?.map(Arc::from))
    }

    pub(crate) fn nil() -> Option<Option<Arc<str>>> {
        Some(None)
    }

    pub(crate) fn is_nil(text: &Option<Arc<str>>) -> bool {
        text.is_none()
    }
}

/// Pairs of texts as an array of two-element arrays.
pub(crate) mod pairs {
    use super::*;

    type Pairs = Vec<(Arc<str>, Arc<str>)>;

    pub(crate) fn encode<C, W: Write>(
        pairs: &[(Arc<str>, Arc<str>)],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(pairs.len() as u64)?;
        for (name, value) in pairs {
            e.array(2)?.str(name)?.str(value)?;
        }
        Ok(())
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, c: &mut C) -> Result<Pairs, decode::Error> {
        let pairs: Vec<(&str, &str)> = Decode::decode(d, c)?;
        Ok(pairs.into_iter().map(|(name, value)| (Arc::from(name), Arc::from(value))).collect())
    }
}

/// An `Arc` of something as that thing.
pub(crate) mod shared {
    use super::*;

    pub(crate) fn encode<C, T: Encode<C>, W: Write>(
        value: &Arc<T>,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        value.as_ref().encode(e, c)
    }

    pub(crate) fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        c: &mut C,
    ) -> Result<Arc<T>, decode::Error> {
        T::decode(d, c).map(Arc::new)
    }
}
