"""Which operations each noun has, for both clients."""

from __future__ import annotations

from taskhook import _operations as operations
from taskhook._methods import AsyncResource, Resource, async_call, async_pages, async_streamed, call, pages, streamed


class Tasks(Resource):
    """Tasks: each is one job at one provider."""

    create = call(operations.create_task)
    create_and_wait = call(operations.create_task_and_wait)
    retrieve = call(operations.retrieve_task)
    list = pages(operations.list_tasks)
    wait = call(operations.wait_for_task)
    poll = call(operations.poll_task)
    cancel = call(operations.cancel_task)
    erase = call(operations.erase_task)
    timeline = pages(operations.task_timeline)
    why = call(operations.task_why)


class Events(Resource):
    """Events, in the same order for all clients."""

    retrieve = call(operations.retrieve_event)
    list = pages(operations.list_events)
    stream = streamed(operations.stream_events)


class Endpoints(Resource):
    """Subscribers."""

    create = call(operations.create_endpoint)
    retrieve = call(operations.retrieve_endpoint)
    list = pages(operations.list_endpoints)
    update = call(operations.update_endpoint)
    delete = call(operations.delete_endpoint)
    rotate_secret = call(operations.rotate_secret)
    test = call(operations.test_endpoint)
    recover = call(operations.recover_endpoint)


class Deliveries(Resource):
    """Deliveries: each is one event for one endpoint."""

    retrieve = call(operations.retrieve_delivery)
    list = pages(operations.list_deliveries)
    body = call(operations.delivery_body)
    retry = call(operations.retry_delivery)
    retry_all = call(operations.retry_deliveries)


class Providers(Resource):
    """The upstream APIs."""

    list = pages(operations.list_providers)


class Keys(Resource):
    """API keys; for keys with the scope `admin`."""

    create = call(operations.create_key)
    list = pages(operations.list_keys)
    revoke = call(operations.revoke_key)


class Faults(Resource):
    """Quarantined rows; for keys with the scope `admin`."""

    list = pages(operations.list_faults)
    retry = call(operations.retry_fault)


class AsyncTasks(AsyncResource):
    """Tasks: each is one job at one provider."""

    create = async_call(operations.create_task)
    create_and_wait = async_call(operations.create_task_and_wait)
    retrieve = async_call(operations.retrieve_task)
    list = async_pages(operations.list_tasks)
    wait = async_call(operations.wait_for_task)
    poll = async_call(operations.poll_task)
    cancel = async_call(operations.cancel_task)
    erase = async_call(operations.erase_task)
    timeline = async_pages(operations.task_timeline)
    why = async_call(operations.task_why)


class AsyncEvents(AsyncResource):
    """Events, in the same order for all clients."""

    retrieve = async_call(operations.retrieve_event)
    list = async_pages(operations.list_events)
    stream = async_streamed(operations.stream_events)


class AsyncEndpoints(AsyncResource):
    """Subscribers."""

    create = async_call(operations.create_endpoint)
    retrieve = async_call(operations.retrieve_endpoint)
    list = async_pages(operations.list_endpoints)
    update = async_call(operations.update_endpoint)
    delete = async_call(operations.delete_endpoint)
    rotate_secret = async_call(operations.rotate_secret)
    test = async_call(operations.test_endpoint)
    recover = async_call(operations.recover_endpoint)


class AsyncDeliveries(AsyncResource):
    """Deliveries: each is one event for one endpoint."""

    retrieve = async_call(operations.retrieve_delivery)
    list = async_pages(operations.list_deliveries)
    body = async_call(operations.delivery_body)
    retry = async_call(operations.retry_delivery)
    retry_all = async_call(operations.retry_deliveries)


class AsyncProviders(AsyncResource):
    """The upstream APIs."""

    list = async_pages(operations.list_providers)


class AsyncKeys(AsyncResource):
    """API keys; for keys with the scope `admin`."""

    create = async_call(operations.create_key)
    list = async_pages(operations.list_keys)
    revoke = async_call(operations.revoke_key)


class AsyncFaults(AsyncResource):
    """Quarantined rows; for keys with the scope `admin`."""

    list = async_pages(operations.list_faults)
    retry = async_call(operations.retry_fault)
