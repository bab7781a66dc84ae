"""The embedded MQTT broker: listeners, sessions, retained documents, wills, rights. Acknowledges what is stored."""
