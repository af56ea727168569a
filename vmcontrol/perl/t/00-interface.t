# What can be seen without a server: names, numbers, constructors, errors before a connect.
use strict;
use warnings;
use Test::More;

use VMware::VmPerl;
use VMware::VmPerl::ConnectParams;
use VMware::VmPerl::Question;
use VMware::VmPerl::Server;
use VMware::VmPerl::VM;

# Constants: exported, by full name, by name as text.
my %numbers = (
    VM_E_SUCCESS => 0, VM_E_NOMEM => -1, VM_E_NETFAIL => -2, VM_E_INVALIDARGS => -3, VM_E_NOACCESS => -4,
    VM_E_NOTCONNECTED => -5, VM_E_BADVERSION => -6, VM_E_TIMEOUT => -7, VM_E_BADSTATE => -8,
    VM_E_NOEXECVMAUTHD => -9, VM_E_NOPROPERTY => -10, VM_E_NOSUCHVM => -11, VM_E_ALREADYCONNECTED => -12,
    VM_E_DISCONNECT => -13, VM_E_BADRESPONSE => -14, VM_E_GARBAGE => -15, VM_E_NEEDINPUT => -16,
    VM_E_NOTSUPPORTED => -17, VM_E_INVALIDVM => -18, VM_E_VMINITFAILED => -19, VM_E_VMEXISTS => -20,
    VM_E_VMBUSY => -21, VM_E_INSUFFICIENT_RESOURCES => -22, VM_E_PROXYFAIL => -23, VM_E_UNSPECIFIED => -999,
    VM_EXECUTION_STATE_ON => 1, VM_EXECUTION_STATE_OFF => 2, VM_EXECUTION_STATE_SUSPENDED => 3,
    VM_EXECUTION_STATE_STUCK => 4, VM_EXECUTION_STATE_UNKNOWN => 5,
    VM_POWEROP_MODE_HARD => 1, VM_POWEROP_MODE_SOFT => 2, VM_POWEROP_MODE_TRYSOFT => 3,
    VM_PRODINFO_PRODUCT => 1, VM_PRODINFO_PLATFORM => 2, VM_PRODINFO_BUILD => 3, VM_PRODINFO_VERSION_MAJOR => 4,
    VM_PRODINFO_VERSION_MINOR => 5, VM_PRODINFO_VERSION_REVISION => 6,
    VM_PRODUCT_WS => 1, VM_PRODUCT_GSX => 2, VM_PRODUCT_ESX => 3, VM_PRODUCT_SERVER => 4, VM_PRODUCT_UNKNOWN => 5,
    VM_PLATFORM_WINDOWS => 1, VM_PLATFORM_LINUX => 2, VM_PLATFORM_VMNIX => 3, VM_PLATFORM_UNKNOWN => 4,
    VM_TIMEOUT_ID => 1,
);
is_deeply([ sort @VMware::VmPerl::EXPORT ], [ sort keys %numbers ], 'these are exported, and no others');
for my $name (sort keys %numbers) {
    no strict 'refs';
    is(&{"main::$name"}(), $numbers{$name}, "$name is in the script's name space");
    is(&{"VMware::VmPerl::$name"}(), $numbers{$name}, "$name by its full name");
    is(VMware::VmPerl::constant($name, 0), $numbers{$name}, "$name by constant()");
}
is(VMware::VmPerl::VM_EXECUTION_STATE_ON, 1, 'a full name is a bareword under strict');
{
    local $! = 0;
    is(VMware::VmPerl::constant('VM_E_NOSUCHTHING', 0), 0, 'an unknown constant is 0');
    ok($!{EINVAL}, 'and $! says so');
    VMware::VmPerl::constant('VM_E_NOMEM', 0);
    is($! + 0, 0, '$! is 0 after a known one');
}
is(eval q{package Few; use VMware::VmPerl qw(VM_E_TIMEOUT); VM_E_TIMEOUT()}, -7, 'importable by name');
ok(!Few->can('VM_E_NOMEM'), 'by name only that');
is(eval q{package Late; require VMware::VmPerl; import VMware::VmPerl; &VM_E_NOMEM}, -1, 'required and imported at run time');

# Versions.
is(VMware::VmPerl::version(), $VMware::VmPerl::VERSION, 'version() is $VERSION');
my $mixed = `"$^X" @{[ map { qq("-I$_") } @INC ]} -e 'require VMware::VmPerl::Wire; \$VMware::VmPerl::Wire::VERSION = "0.9"; require VMware::VmPerl' 2>&1`;
isnt($?, 0, 'files of two versions do not load');
like($mixed, qr/^Perl API Version does not match dynamic library version\.$/m, 'and say why');

# Constructors, as functions and as methods.
for my $class (map { "VMware::VmPerl::$_" } qw(Server VM ConnectParams)) {
    no strict 'refs';
    isa_ok(&{"${class}::new"}(), $class, "${class}::new()");
    isa_ok($class->new, $class, "$class->new");
}
isa_ok(new VMware::VmPerl::VM(), 'VMware::VmPerl::VM', 'the indirect form');
{
    package Mine;
    our @ISA = ('VMware::VmPerl::VM');
}
isa_ok(Mine->new, 'Mine', 'a class of the script\'s own');

for my $params (VMware::VmPerl::ConnectParams::new('h', 903, 'u', 'p'), VMware::VmPerl::ConnectParams->new('h', 903, 'u', 'p')) {
    is(join(' ', map { $params->$_ } qw(hostname port username password)), 'h 903 u p', 'parameters in order');
}
my $params = VMware::VmPerl::ConnectParams::new(undef, 903);
is($params->hostname, undef, 'undef stays undef');
$params->hostname('there');
$params->set_username('me');
is($params->get_hostname . $params->username . $params->get_port, 'thereme903', 'set and get');

# Failures without a connection.
my $vm = VMware::VmPerl::VM::new();
is_deeply([ $vm->get_last_error ], [ 0, '' ], 'a new object has no error');
is($vm->is_connected, undef, 'and is not connected, which is undef');
for my $call (
    ['get_execution_state'], ['start'], [ stop => 1 ], ['reset'], ['suspend'], [ get_config => 'a' ], [ set_config => 'a', 'b' ],
    [ get_guest_info => 'a' ], [ set_guest_info => 'a', 'b' ], [ get_resource => 'a' ], [ set_resource => 'a', 1 ],
    ['get_config_file_name'], [ get_product_info => 1 ], ['get_capabilities'], ['get_remote_connections'], ['get_runas_user'],
    ['get_heartbeat'], ['get_uptime'], ['get_tools_last_active'], ['get_pid'], ['get_id'], [ connect_device => 'floppy0' ],
    [ disconnect_device => 'floppy0' ], [ device_is_connected => 'floppy0' ], ['has_snapshot'], ['create_snapshot'],
    ['revert_to_snapshot'], ['revert_snapshot'], ['remove_all_snapshots'], ['delete_snapshot'], ['get_pending_question'],
    [ answer_question => 1, 0 ], [ set_runas_user => 'a', 'b' ], [ add_redo => 'a' ], [ commit => 'a', 0, 0, 0 ],
) {
    my ($method, @arguments) = @$call;
    is_deeply([ $vm->$method(@arguments) ], [undef], "$method without a connection is one undef, also in a list");
    my ($number, $text) = $vm->get_last_error;
    is($number, VM_E_NOTCONNECTED, "$method: -5");
    like($text, qr/^Not connected: ./, "$method: text");
}
my $server = VMware::VmPerl::Server::new();
is_deeply([ $server->registered_vm_names ], [], 'no list is the empty list');
is(scalar($server->registered_vm_names), undef, 'or undef');
is($server->get_last_error, VM_E_NOTCONNECTED, 'the error in scalar context is its number');
for my $call ([ register_vm => '/a' ], [ unregister_vm => '/a' ], [ is_registered => '/a' ], [ get_resource => 'a' ], [ set_resource => 'a', 1 ], [ exec => '<exec/>' ]) {
    my ($method, @arguments) = @$call;
    is($server->$method(@arguments), undef, "$method without a connection");
    is($server->get_last_error, -5, "$method: -5");
}

# Arguments that cannot be right never reach a wire.
for my $case (
    [ 'no parameters', sub { $server->connect() } ],
    [ 'something else as parameters', sub { $server->connect({}) } ],
    [ 'port 70000', sub { $server->connect(VMware::VmPerl::ConnectParams::new('h', 70000)) } ],
    [ 'port http', sub { $server->connect(VMware::VmPerl::ConnectParams::new('h', 'http')) } ],
    [ 'host with a line end', sub { $server->connect(VMware::VmPerl::ConnectParams::new("h\n")) } ],
    [ 'host that is no UTF-8', sub { $server->connect(VMware::VmPerl::ConnectParams::new("h\xed\xa0\x80")) } ],
    [ 'two documents', sub { $server->exec('<exec><op>inc</op></exec><exec/>') } ],
    [ 'time-out 0', sub { $server->set_timeout(0) } ],
    [ 'time-out of another id', sub { $server->set_timeout(2, 1000) } ],
    [ 'time-out in words', sub { $server->set_timeout('long') } ],
) {
    my ($what, $call) = @$case;
    is($call->(), undef, "$what is refused");
    is($server->get_last_error, VM_E_INVALIDARGS, "$what: -3");
}
is($vm->connect(VMware::VmPerl::ConnectParams::new(), undef), undef, 'no config file is refused');
is($vm->get_last_error, VM_E_INVALIDARGS, 'no config file: -3');
is($vm->connect(VMware::VmPerl::ConnectParams::new(), "/a\x01"), undef, 'a path that XML cannot carry is refused');
is($vm->get_last_error, VM_E_INVALIDARGS, 'such a path: -3');

is($server->get_timeout, 120_000, 'two minutes unless it is set');
is($server->set_timeout(VM_TIMEOUT_ID, 5000), 1, 'set by id');
is_deeply([ $server->get_last_error ], [ 0, '' ], 'a success resets the error');
is($server->get_timeout, 5000, 'and is set');
is($server->set_timeout(6000) && $server->get_timeout, 6000, 'set without id');

# The older names.
require VMware::Control;
is(VMware::Control::VM_EXECUTION_STATE_STUCK(), 4, 'constants of the older family');
is(VMware::Control::constant('VM_E_VMEXISTS', 0), -20, 'and by name');
isa_ok(VMware::Control::VM::new(), 'VMware::VmPerl::VM');
isa_ok(VMware::Control::Server->new('h', 1, 'u', 'p'), 'VMware::VmPerl::Server');

# The script's own state.
{
    local $@ = 'kept';
    local $SIG{__DIE__} = sub { fail("the __DIE__ hook was called: @_") };
    $vm->get_execution_state;
    is($@, 'kept', '$@ is left alone');
}

# Documentation.
require Pod::Checker;
for my $file (map { $INC{$_} } sort grep { m{^VMware/} } keys %INC) {
    my $checker = Pod::Checker->new(-quiet => 1);
    open my $null, '>', '/dev/null' or die;
    $checker->parse_from_file($file, $null);
    is($checker->num_errors, 0, "documentation of $file");
}

done_testing;
