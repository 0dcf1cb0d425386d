"""Webhooks to tenants: what is to be delivered, and how it is sent."""
