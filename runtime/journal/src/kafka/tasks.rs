//! Writing tasks: what any producer may do, done by our own API.

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::{
    error::RDKafkaErrorCode,
    producer::{FutureRecord, Producer},
};

use super::{Client, Sender, transaction};
use crate::intake::{NewTask, SendError, Tasks};

/// See the module.
pub(crate) struct KafkaTasks {
    pub(crate) client: Client,
    pub(crate) producer: Arc<Sender>,
}

#[async_trait]
impl Tasks for KafkaTasks {
    async fn send(&self, partition: u32, task: NewTask) -> Result<(), SendError> {
        let config = &self.client.config;
        if partition >= config.partitions {
            return Err(SendError::NoSuchPartition(partition));
        }
        let (bytes, limit) = (task.body.len() as u64, config.message_bytes as u64);
        if bytes > limit {
            return Err(SendError::TooLarge { bytes, limit });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.client.topics.tasks)
            .partition(partition as i32)
            .payload(&task.body);
        record.key = task.key.as_deref();
        record.headers = transaction::headers(&task.headers);
        let sent = match self.producer.send_result(record) {
            Ok(sent) => sent,
            Err((error, _)) => {
                return Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => SendError::Busy,
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => SendError::TooLarge { bytes, limit },
                    _ => SendError::Unavailable(error.to_string()),
                });
            }
        };
        match sent.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => SendError::TooLarge { bytes, limit },
                _ => SendError::Unavailable(error.to_string()),
            }),
            Err(_) => Err(SendError::Unavailable("the process is ending".into())),
        }
    }

    async fn end(&self, partition: u32) -> Result<u64, SendError> {
        if partition >= self.client.config.partitions {
            return Err(SendError::NoSuchPartition(partition));
        }
        let (producer, client) = (self.producer.clone(), self.client.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let timeout = client.config.request_timeout;
            producer.client().fetch_watermarks(&client.topics.tasks, partition as i32, timeout)
        });
        match asked.await {
            Ok(Ok((_, end))) => Ok(u64::try_from(end).unwrap_or(0)),
            Ok(Err(error)) => Err(SendError::Unavailable(error.to_string())),
            Err(_) => Err(SendError::Unavailable("the process is ending".into())),
        }
    }
}
