"""Brokers of somebody else's: the platform behind one (`MQTT_BROKER=external`), and bridges to others."""
