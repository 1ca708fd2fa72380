"""What two processes must agree on, byte for byte.

Pure: no grpc, aiokafka, redis or asyncio here, and no clock. A rule that two processes
share is written once, in the file named by what it decides, and proved by case tables,
properties and golden bytes.
"""
