"""The HTTP API: routes over the rooms' doors. Decides nothing; errors become problem documents at one place."""
